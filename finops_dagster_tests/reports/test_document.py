from finops_dagster.reports.document import AMOUNTS, INDEXES, TABLES, empty_document


def test_an_empty_document_has_every_table_and_every_list_that_its_columns_name():
    document = empty_document()
    for table, columns in TABLES.items():
        assert document[table] == {column: [] for column in columns}
        assert AMOUNTS & set(columns)
    assert all(document[name] == [] for name in INDEXES.values())
