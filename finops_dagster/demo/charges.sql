-- The charges of a bill, one a row, before a layout gives them columns.
--
-- A bill repeats 1,000 slots: charge `i` is slot `i % 1000` of the table `slot`, to which the macro
-- `charges` gives a date, a quantity and a workload. A fee that is paid once for many charges, such as
-- a Savings Plan's, adds up within each 1,000. All amounts are whole numbers of ticks of 1e-10, the
-- smallest step that AWS prints, so every machine gives the same digits with any number of cores.
-- The table `version` has one row: the version and the month of the bill.

CREATE MACRO tick() AS 10000000000::BIGINT;
-- A number of ticks as AWS prints it: 0.0116000000, or 4.0E-7 as Java prints a small double.
CREATE MACRO scientific(digits) AS left(digits, 1) || '.'
    || coalesce(nullif(rtrim(substr(digits, 2), '0'), ''), '0') || 'E-' || (11 - length(digits));
CREATE MACRO aws_number(number, exponent) AS CASE
    WHEN exponent AND abs(number) BETWEEN 1 AND 9999999
    THEN if(number < 0, '-', '') || scientific(abs(number)::TEXT)
    ELSE (number::DECIMAL(19, 0) * 0.0000000001::DECIMAL(10, 10))::TEXT
END;
CREATE MACRO fill_placeholders(text, region, location, rate, sku) AS replace(replace(replace(replace(
    text, '{region}', coalesce(region, 'global')), '{location}', coalesce(location, 'Any')),
    '{rate}', rtrim(rtrim(aws_number(rate, false), '0'), '.')), '{sku}', coalesce(sku, ''));
CREATE MACRO percent_of(cost, percent) AS (cost * percent // 100)::BIGINT;

-- The table `kind` is kinds.csv, the kinds of charges. The order of its lines decides which charge of a
-- bill is of which kind.
--   share     the number of charges in each 1,000; late kinds take turns
--   rate      USD for one `unit` in us-east-1, close to AWS's list price of 2023
--   amount    the usual quantity of a charge
--   period    of one charge: hour, day, month, or previous (a day of the month before)
--   spread    of the quantities: full is always `amount`, even is 0.2 to 1.8 times it, heavy is mostly
--             far less and at most 7 times it
--   flags     whole: only whole units; global: no region; zonal: an availability zone; lump: the price of
--             one unit varies instead of the quantity; late: added after the month's end
--   follower  the type of the next charge, which takes this one back, or a part of it
--
-- A slot with `is_follower` takes back the one before it, and has its account, time and quantity.
CREATE TABLE slot AS
WITH occurring AS (
    SELECT * REPLACE (rate::DECIMAL(18, 10) AS rate, amount::DECIMAL(18, 10) AS amount),
        rowid AS number, unnest(range(share::INT)) AS occurrence,
        flags LIKE '%late%' IS TRUE AS late, flags LIKE '%lump%' IS TRUE AS lump,
        flags LIKE '%whole%' IS TRUE AS whole, flags LIKE '%zonal%' IS TRUE AS zonal,
        flags LIKE '%global%' IS TRUE AS is_global
    FROM kind
), followed AS (
    SELECT *, false AS is_follower FROM occurring
    UNION ALL
    SELECT * REPLACE (follower AS type, NULL AS resource, CASE follower
        WHEN 'EdpDiscount' THEN 'Enterprise Program Discount, "private pricing"'
        ELSE 'SavingsPlanNegation used by AccountId : ' || payer_account() || ' and UsageSku : {sku}'
    END AS description), true
    FROM occurring WHERE follower IS NOT NULL
), ordered AS ( -- spread evenly, so that a short bill is a fair sample of a long one
    SELECT *, row_number() OVER (ORDER BY
        late, if(late, 0, (occurrence + (number * 7 % 17 + 0.5::DOUBLE) / 17) / share::INT), number, is_follower
    ) - 1 AS position
    FROM followed
), priced AS (
    SELECT *,
        value_if(NOT lump, token(concat_ws('/', service_name, usage_type, prefix), 16)) AS sku,
        (rate * tick())::BIGINT * price // 1000 AS list_rate,
        value_if(type IN ('DiscountedUsage', 'RIFee'), reservation_arn(product_code)) AS reservation,
        value_if(type LIKE 'SavingsPlan%', savings_plan_arn(occurrence)) AS savings_plan,
        coalesce(savings_plan, reservation) AS commitment,
        spread = 'heavy' AND position % 3 = 0 AS exponent,
        if(family = 'AWS Marketplace', 'Lakehouse Analytics, Inc. d/b/a "Lakehouse"',
            'Amazon Web Services, Inc.') AS seller,
        month::TIMESTAMP - if(period = 'previous', INTERVAL 1 MONTH, INTERVAL 0 MONTH) AS origin,
        date_diff('day', origin, origin + INTERVAL 1 MONTH) AS days
    FROM ordered
    JOIN line_item_type USING (type) JOIN service USING (product_code)
    JOIN region ON prefix = if(is_global, '', region_cycle(number + occurrence)), version
), committed AS ( -- 96 of 100 are used of a commitment; half a reservation's price was paid up front
    SELECT *,
        sum(list_rate * committed_percent // 100) OVER (PARTITION BY commitment)::BIGINT
            // if(type = 'RIFee', 2, 1) AS used,
        value_if(type IN ('SavingsPlanRecurringFee', 'RIFee'), used * 100 // 96) AS fee
    FROM priced
)
SELECT * REPLACE (
        coalesce(fee, list_rate) AS rate,
        nullif(concat_ws('-', nullif(prefix, ''), usage_type), '') AS usage_type,
        fill_placeholders(resource, region, location, list_rate, sku) AS resource,
        fill_placeholders(description, region, location, list_rate, sku) AS description,
        map_concat(
            map_from_entries(list_transform(str_split(attributes, '|'), lambda pair: {
                'key': split_part(pair, '=', 1),
                'value': fill_placeholders(split_part(pair, '=', 2), region, location, list_rate, sku)
            })),
            CASE WHEN usage_type LIKE 'BoxUsage:%' THEN instance(substr(usage_type, 10)) ELSE MAP {} END
        ) AS attributes
    ),
    charge_category = 'Usage' AS is_usage,
    type = 'DiscountedUsage' AS is_reserved,
    value_if(charge_category = 'Usage', aws_number(list_rate, exponent)) AS list_price,
    value_if(NOT lump, aws_number(if(type = 'DiscountedUsage', 0, coalesce(fee, list_rate)), exponent)) AS unit_price,
    (amount * tick())::BIGINT AS usual,
    if(unit = 'Hrs', usual, 1::BIGINT << 62) AS most,
    nullif(regexp_extract(attributes, 'SizeFactor=(\d+)', 1), '')::INT AS normalization,
    if(spread = 'full', 1000, -- per mille of January 2023, with a wobble of 2 %
        least(greatest(1000 + trend * date_diff('month', DATE '2023-01-01', month), 300), 8000) * (980
        + ('0x' || left(sha256(concat_ws('/', seed, product_code, month)), 8))::BIGINT % 41
    ) // 1000) AS growth,
    CASE period WHEN 'hour' THEN days * 24 WHEN 'month' THEN 1 ELSE days END AS steps,
    CASE period WHEN 'hour' THEN 1 WHEN 'month' THEN days * 24 ELSE 24 END AS step_hours,
    if(steps > 4 AND NOT late, 4000, 1) AS run_length, -- charges in which a slot keeps its resource
    value_if(zonal, region) AS zone,
    date_trunc('year', month)::DATE || 'T00:00:00.000Z' AS committed_from,
    (date_trunc('year', month) + INTERVAL 1 YEAR)::DATE || 'T00:00:00.000Z' AS committed_until,
    value_if(restated, digits(concat_ws('/', month, seller), 10)) AS invoice_id,
    -- A bill never ends in a slot that the next one would take back, but in the first of mere usage.
    if(lead(is_follower) OVER (ORDER BY position),
        min(position) FILTER (type = 'Usage' AND follower IS NULL) OVER (), position) AS last_position
FROM committed
ORDER BY position;

-- The charges of a range of numbers. The joins keep their order without a sort.
CREATE MACRO charges(first_charge, end_charge) AS TABLE
WITH numbered AS (
    SELECT i, CASE
        WHEN i < before_late - 1 THEN i % 1000
        WHEN i < before_late THEN (
            SELECT last_position FROM slot WHERE position = (before_late - 1) % 1000
        )
        ELSE 1000 + (i - before_late) % 4
    END AS position
    FROM range(first_charge, end_charge) AS numbers(i), version
), placed AS (
    SELECT slot.*, i - is_follower::INT AS source, (i - is_follower::INT) // run_length AS run
    FROM numbered LEFT JOIN slot USING (position)
), drawn AS (
    SELECT *,
        scatter(run * 2003 + position - is_follower::INT + salt) AS run_draw,
        scatter(source * 3 + 1 + salt) AS row_draw
    FROM placed
), sized AS (
    SELECT *,
        draw(run_draw, 62089911) AS serial,
        least(most, usual::HUGEINT * growth // 1000 * CASE spread
            WHEN 'full' THEN 1000000
            WHEN 'even' THEN 200000 + draw(row_draw, 69621) % 1600001
            ELSE 1 + 7 * scale * scale * scale * scale * scale * scale // 1000000000000
        END // 1000000)::BIGINT AS quantity
    FROM (SELECT *, 1 + draw(row_draw, 39373) % 1000 AS scale FROM drawn)
), dated AS (
    SELECT * REPLACE (least(most, greatest(1, quantity::HUGEINT * CASE
            -- A restated month has measured one usage charge of 400 anew.
            WHEN restated AND type = 'Usage' AND draw(row_draw, 40014) % 400 = 0 THEN 1050 ELSE 1000
        END // 1000))::BIGINT AS quantity),
        origin + to_hours((draw(run_draw, 16807) + source // 1000) % steps * step_hours) AS usage_start
    FROM sized
), counted AS (
    SELECT * REPLACE (if(whole, (quantity // tick() + 1) * tick(), quantity) AS quantity)
    FROM dated
), measured AS (
    SELECT *,
        ((quantity::HUGEINT * rate + tick() // 2) // tick())::BIGINT AS cost,
        resource IS NOT NULL AND serial % 8 > 0 AS has_tags
    FROM counted LEFT JOIN workload ON workload.rowid = draw(run_draw, 48271) % 14
)
SELECT
    position, type, is_usage, is_reserved, commitment, account, account_name(account) AS account_name, business_unit,
    charge_category, charge_frequency, pricing_category,
    usage_start, usage_start + to_hours(step_hours) AS usage_end,
    -- 39 bytes in base 64, made to look like AWS's base 32.
    translate(lower(to_base64(unhex(
        sha256(concat_ws('/', assembly, position, run))
        || left(md5(concat_ws('/', assembly, position, run)), 14)
    ))), '+/0189', 'uvwxyz') AS line_item_id,
    zone || substr('abc', 1 + serial % 3, 1) AS zone,
    replace(replace(replace(resource, '{account}', account), '{name}', name || '-' || serial % 40),
        '{hex}', '0' || left(md5(concat_ws('/', position, run_draw)), 16)) AS resource,
    aws_number(usage_quantity, exponent) AS usage_amount,
    value_if(is_usage, usage_amount) AS consumed_quantity,
    aws_number(usage_quantity * normalization, exponent) AS normalized_amount,
    aws_number(percent_of(cost, cost_percent), exponent) AS billed_cost,
    aws_number(percent_of(cost, if(is_reserved, committed_percent, cost_percent)), exponent) AS blended_cost,
    value_if(is_usage, aws_number(cost, exponent)) AS list_cost,
    aws_number(committed, exponent) AS committed_cost,
    value_if(is_reserved, aws_number(committed // 2, exponent)) AS recurring_cost,
    value_if(is_reserved, aws_number(committed - committed // 2, exponent)) AS upfront_cost,
    if(fee IS NULL, coalesce(committed_cost, billed_cost), '0') AS effective_cost,
    aws_number(if(type = 'RIFee', 2, 1) * (fee - used), false) AS unused_cost, -- half of it is upfront
    value_if(type = 'Usage' AND follower = 'EdpDiscount', aws_number(percent_of(cost, -6), exponent)) AS discount,
    value_if(has_tags, name || '-' || serial % 40) AS tag_name,
    value_if(has_tags, name) AS tag_app,
    value_if(has_tags, team) AS tag_team,
    value_if(has_tags, environment) AS tag_environment,
    value_if(has_tags, cost_center) AS tag_cost_center,
    value_if(has_tags AND business_unit = 'Data', 'confidential, personal data') AS tag_data_classification,
    value_if(has_tags, if(environment IS NULL, 'Root:' || account,
        'AssumedRole:AROA' || account || 'XYZQ:deploy-' || name)) AS tag_created_by
FROM (
    SELECT *, percent_of(cost, committed_percent) AS committed, if(lump, tick(), quantity) AS usage_quantity
    FROM measured
);

-- The same charges as FOCUS has them: without negations, as what a Savings Plan covers bills nothing, and
-- with a charge of its own for what was not used of a commitment.
CREATE MACRO focus_charges(first_charge, end_charge) AS TABLE
SELECT * REPLACE (
    if(is_unused, 'Usage', charge_category) AS charge_category,
    if(is_unused, 'Usage-Based', charge_frequency) AS charge_frequency,
    if(is_unused, 'Committed', pricing_category) AS pricing_category,
    if(is_unused OR type = 'SavingsPlanCoveredUsage', '0', billed_cost) AS billed_cost,
    if(is_unused, unused_cost, effective_cost) AS effective_cost,
    if(is_unused, '0', coalesce(list_cost, billed_cost)) AS list_cost
)
FROM (
    SELECT *, unnest(if(unused_cost IS NULL, [false], [false, true])) AS is_unused
    FROM charges(first_charge, end_charge)
    WHERE type <> 'SavingsPlanNegation'
);
