-- The invented company of the example bills: its accounts, which are subscriptions in Azure, and its
-- workloads.

CREATE MACRO account_name(account) AS CASE account
    WHEN '210987654321' THEN 'management'
    WHEN '310245178860' THEN 'shop-production'
    WHEN '004417290135' THEN 'data-platform'
    WHEN '518830047726' THEN 'shop-staging'
    WHEN '627741900318' THEN 'engineering-dev'
    WHEN '739205516642' THEN 'engineering-shared'
END;

-- A workload is a tagged group of resources in one account.
CREATE TABLE workload AS FROM (VALUES
    ('310245178860', 'orders-api', 'checkout', 'production', 'CC-1200', 'Shop'),
    ('310245178860', 'catalog-search', '検索', 'production', 'CC-1210', 'Shop'),
    ('310245178860', 'web-frontend', 'storefront', 'production', 'CC-1200', 'Shop'),
    ('310245178860', 'payments', 'checkout', 'production', 'CC-1230', 'Shop'),
    ('004417290135', 'lake-ingest', 'équipe données', 'production', 'CC-3100', 'Data'),
    ('004417290135', 'warehouse-loads', 'équipe données', 'Production', 'CC-3100', 'Data'),
    ('004417290135', 'ml-training', 'ML, ranking', 'research', 'CC-3150', 'Data'),
    ('518830047726', 'orders-api', 'checkout', 'staging', 'CC-1200', 'Shop'),
    ('518830047726', 'load-test', NULL, 'staging', NULL, 'Shop'),
    ('627741900318', 'sandbox', NULL, 'dev', NULL, 'Engineering'),
    ('627741900318', 'ci-runners', 'Plattform Köln', 'dev', 'CC-2100', 'Engineering'),
    ('739205516642', 'observability', 'Plattform Köln', 'shared', 'CC-2100', 'Engineering'),
    ('739205516642', 'identity', 'security', 'shared', 'CC-2200', 'Engineering'),
    ('210987654321', 'landing-zone', NULL, NULL, NULL, 'Unallocated')
) AS workload(account, name, team, environment, cost_center, business_unit);
