-- The small model of a bill: its charges, one a row, before a layout gives them columns.
--
-- A bill repeats 1,000 slots: charge `i` is slot `i % 1000` of the table `slot`, which the macro
-- `charges` dates, measures and gives to a workload. What is paid once for many charges, as a Savings
-- Plan, adds up inside each 1,000. All is made from whole numbers: money and quantities are ticks of
-- 1e-10, the smallest step AWS prints, so neither the machine nor its number of cores changes a digit.
-- The one row of the table `version` says which refresh of which month the bill is.

CREATE MACRO tick() AS 10000000000::BIGINT;
-- A number of ticks as AWS prints it: 0.0116000000, or 4.0E-7 as Java prints a small double.
CREATE MACRO shortened(digits) AS left(digits, 1) || '.'
    || coalesce(nullif(rtrim(substr(digits, 2), '0'), ''), '0') || 'E-' || (11 - length(digits));
CREATE MACRO written(number, exponent) AS CASE
    WHEN exponent AND abs(number) BETWEEN 1 AND 9999999
    THEN if(number < 0, '-', '') || shortened(abs(number)::TEXT)
    ELSE (number::DECIMAL(19, 0) * 0.0000000001::DECIMAL(10, 10))::TEXT
END;
-- Letters that are always the same for one text: a SKU, an invoice's id.
CREATE MACRO token(text, size, letters := 'ABCDEFGHJKMNPQRSTUVWXYZ23456789') AS
    array_to_string(list_transform(range(size), lambda n:
        letters[1 + ('0x' || sha256(text)[2 * n + 1:2 * n + 2])::INT % length(letters)]
    ), '');
CREATE MACRO moment(t) AS strftime(t, '%Y-%m-%dT%H:%M:%SZ');
CREATE MACRO given(condition, value) AS CASE WHEN condition THEN value END;
CREATE MACRO digits(text, size) AS token(text, size, letters := '123456789');
CREATE MACRO placed(text, region, location, rate, sku) AS replace(replace(replace(replace(
    text, '{region}', coalesce(region, 'global')), '{location}', coalesce(location, 'Any')),
    '{rate}', rtrim(rtrim(written(rate, false), '0'), '.')), '{sku}', coalesce(sku, ''));
-- The fifth power modulo a prime p: a permutation of 0..p-1, as 5 and p-1 have no common factor.
CREATE MACRO squared(x) AS (x * x) % 2147483647;
CREATE MACRO scatter(x) AS
    squared(x % 2147483647) * squared(x % 2147483647) % 2147483647 * (x % 2147483647) % 2147483647;
-- Numbers that look independent, from one scattered one.
CREATE MACRO draw(scattered, multiplier) AS (scattered * multiplier) % 2147483647;
CREATE MACRO part(cost, percent) AS (cost * percent // 100)::BIGINT;
CREATE MACRO filled(entries) AS
    map_from_entries(list_filter(entries, lambda entry: entry.value IS NOT NULL));

-- The table `kind` is kinds.csv, what the company buys. `share` is the number of charges in each 1,000
-- (of late kinds: in turn), `rate` USD for one `unit` in us-east-1 and close to AWS's list price of
-- 2023, `amount` the usual quantity of a charge. `period` is that of one charge: hour, day, month, or
-- previous (a day of the month before). `spread` says how quantities vary: full is always `amount`,
-- even 0.2 to 1.8 times it, heavy mostly far less and at most 7 times it. `flags`: whole counts in
-- whole units, global has no region, zonal names an availability zone, lump varies the price of one
-- unit instead of the quantity, late is added after the month's end. `follower` is the type of the
-- charge that comes next and takes this one back, or a part of it. The order of the lines decides
-- which charge of a bill is of which kind.
--
-- A slot that is `behind` takes back the one before it, and has that one's account, time and quantity.
CREATE TABLE slot AS
WITH occurring AS (
    SELECT * REPLACE (rate::DECIMAL(18, 10) AS rate, amount::DECIMAL(18, 10) AS amount),
        rowid AS number, unnest(range(share::INT)) AS occurrence,
        flags LIKE '%late%' IS TRUE AS late, flags LIKE '%lump%' IS TRUE AS lump,
        flags LIKE '%whole%' IS TRUE AS whole, flags LIKE '%zonal%' IS TRUE AS zonal,
        flags LIKE '%global%' IS TRUE AS is_global
    FROM kind
), followed AS (
    SELECT *, false AS behind FROM occurring
    UNION ALL
    SELECT * REPLACE (follower AS type, NULL AS resource, CASE follower
        WHEN 'EdpDiscount' THEN 'Enterprise Program Discount, "private pricing"'
        ELSE 'SavingsPlanNegation used by AccountId : ' || payer_account() || ' and UsageSku : {sku}'
    END AS description), true
    FROM occurring WHERE follower IS NOT NULL
), ordered AS ( -- spread evenly, so that a short bill is a fair sample of a long one
    SELECT *, row_number() OVER (ORDER BY
        late, if(late, 0, (occurrence + (number * 7 % 17 + 0.5::DOUBLE) / 17) / share::INT), number, behind
    ) - 1 AS position
    FROM followed
), priced AS (
    SELECT *,
        given(NOT lump, token(concat_ws('/', service_name, usage_type, prefix), 16)) AS sku,
        (rate * tick())::BIGINT * price // 1000 AS list_rate,
        given(type IN ('DiscountedUsage', 'RIFee'), reservation_arn(product_code)) AS reservation,
        given(type LIKE 'SavingsPlan%', savings_plan_arn(occurrence)) AS savings_plan,
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
        given(type IN ('SavingsPlanRecurringFee', 'RIFee'), used * 100 // 96) AS fee
    FROM priced
)
SELECT * REPLACE (
        coalesce(fee, list_rate) AS rate,
        nullif(concat_ws('-', nullif(prefix, ''), usage_type), '') AS usage_type,
        placed(resource, region, location, list_rate, sku) AS resource,
        placed(description, region, location, list_rate, sku) AS description,
        map_concat(
            map_from_entries(list_transform(str_split(attributes, '|'), lambda pair: {
                'key': split_part(pair, '=', 1),
                'value': placed(split_part(pair, '=', 2), region, location, list_rate, sku)
            })),
            CASE WHEN usage_type LIKE 'BoxUsage:%' THEN instance(substr(usage_type, 10)) ELSE MAP {} END
        ) AS attributes
    ),
    charge_category = 'Usage' AS is_usage,
    type = 'DiscountedUsage' AS is_reserved,
    given(charge_category = 'Usage', written(list_rate, exponent)) AS list_price,
    given(NOT lump, written(if(type = 'DiscountedUsage', 0, coalesce(fee, list_rate)), exponent)) AS unit_price,
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
    given(zonal, region) AS zone,
    date_trunc('year', month)::DATE || 'T00:00:00.000Z' AS committed_from,
    (date_trunc('year', month) + INTERVAL 1 YEAR)::DATE || 'T00:00:00.000Z' AS committed_until,
    given(restated, digits(concat_ws('/', month, seller), 10)) AS invoice_id,
    -- A bill never ends in a slot that the next one would take back, but in the first of mere usage.
    if(lead(behind) OVER (ORDER BY position),
        min(position) FILTER (type = 'Usage' AND follower IS NULL) OVER (), position) AS last_position
FROM committed
ORDER BY position;

-- The charges from one number to another. The other joins keep their order without a sort.
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
    SELECT slot.*, i - behind::INT AS source, (i - behind::INT) // run_length AS run
    FROM numbered LEFT JOIN slot USING (position)
), drawn AS (
    SELECT *,
        scatter(run * 2003 + position - behind::INT + salt) AS run_draw,
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
    usage_start, usage_start + to_hours(step_hours) AS usage_end,
    -- 39 bytes in base 64, made to look like AWS's base 32.
    translate(lower(to_base64(unhex(
        sha256(concat_ws('/', assembly, position, run))
        || left(md5(concat_ws('/', assembly, position, run)), 14)
    ))), '+/0189', 'uvwxyz') AS line_item_id,
    zone || substr('abc', 1 + serial % 3, 1) AS zone,
    replace(replace(replace(resource, '{account}', account), '{name}', name || '-' || serial % 40),
        '{hex}', '0' || left(md5(concat_ws('/', position, run_draw)), 16)) AS resource,
    written(usage_quantity, exponent) AS usage_amount,
    given(is_usage, usage_amount) AS consumed_quantity,
    written(usage_quantity * normalization, exponent) AS normalized_amount,
    written(part(cost, cost_percent), exponent) AS billed_cost,
    written(part(cost, if(is_reserved, committed_percent, cost_percent)), exponent) AS blended_cost,
    given(is_usage, written(cost, exponent)) AS list_cost,
    written(committed, exponent) AS committed_cost,
    given(is_reserved, written(committed // 2, exponent)) AS recurring_cost,
    given(is_reserved, written(committed - committed // 2, exponent)) AS upfront_cost,
    CASE
        WHEN type IN ('SavingsPlanNegation', 'SavingsPlanRecurringFee', 'RIFee') THEN '0'
        ELSE coalesce(committed_cost, billed_cost)
    END AS effective_cost,
    given(type = 'Usage' AND follower = 'EdpDiscount', written(part(cost, -6), exponent)) AS discount,
    given(has_tags, name || '-' || serial % 40) AS tag_name,
    given(has_tags, name) AS tag_app,
    given(has_tags, team) AS tag_team,
    given(has_tags, environment) AS tag_environment,
    given(has_tags, cost_center) AS tag_cost_center,
    given(has_tags AND business_unit = 'Data', 'confidential, personal data') AS tag_data_classification,
    given(has_tags, if(environment IS NULL, 'Root:' || account,
        'AssumedRole:AROA' || account || 'XYZQ:deploy-' || name)) AS tag_created_by
FROM (
    SELECT *, part(cost, committed_percent) AS committed, if(lump, tick(), quantity) AS usage_quantity
    FROM measured
);
