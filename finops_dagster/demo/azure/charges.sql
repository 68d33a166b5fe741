-- The charges of a month of Azure's bill, one a row, before focus.csv gives them columns.
--
-- Resource `n` has the meter of slot `n % (number of slots)`, and one charge a day. Its workload,
-- region and names are the same in every month. Prices are in USD and have at most 7 decimals, as
-- quantities have; costs are in EUR, by an exchange rate of 4 decimals, so all costs are exact in 18.
-- The table `parameters` has one row: the month and the size of the bill.

CREATE MACRO guid(text) AS
    regexp_replace(md5(text), '(.{8})(.{4})(.{4})(.{4})(.{12})', '\1-\2-\3-\4-\5');
-- DuckDB keeps a product of DECIMALs of up to 18 digits in 18 digits, so wide ones start from a wide one.
CREATE MACRO millionths(number) AS number::DECIMAL(20, 0) * 0.000001::DECIMAL(6, 6);
CREATE MACRO dollars(price, quantity) AS price::DECIMAL(20, 7) * quantity;
CREATE MACRO in_euros(price, rate) AS (price * rate)::DECIMAL(18, 11);
CREATE MACRO euros(price, quantity, rate) AS in_euros(price, rate) * quantity;
CREATE MACRO percent_of(price, percent) AS (price * percent * 0.01::DECIMAL(2, 2))::DECIMAL(18, 7);
CREATE MACRO plain_number(number) AS -- as Azure prints a number, without the zeros at its end
    if(number::TEXT LIKE '%.%', rtrim(rtrim(number::TEXT, '0'), '.'), number::TEXT);

-- Microsoft fixes the rate of a month on its first day.
CREATE TABLE run AS SELECT *,
    millionths((9050 + ('0x' || left(sha256('rate ' || month), 8))::BIGINT % 250) * 100)::DECIMAL(6, 4)
        AS exchange_rate
FROM parameters;

-- `price_level` is per mille of the price in West Europe.
CREATE TABLE region AS FROM (VALUES
    (0, 'westeurope', 'West Europe', 'EU West', 1000),
    (1, 'germanywestcentral', 'Germany West Central', 'DE West Central', 1080),
    (2, 'northeurope', 'North Europe', 'EU North', 950),
    (3, 'eastus2', 'East US 2', 'US East 2', 880)
) AS region(region, region_id, region_name, sku_region, price_level);

-- Two reservations of a SKU each, and a savings plan for all compute; each is billed by the month.
CREATE TABLE commitment AS FROM (VALUES
    ('vm', 'Reservation', 'Usage', 'Hours', 'D4s_v5_westeurope', 'reservation'),
    ('sql', 'Reservation', 'Usage', 'Hours', 'SQL_vCore_orders', 'reservation'),
    ('plan', 'Savings Plan', 'Spend', 'EUR', 'Compute savings plan, 1 year', 'savingsPlan')
) AS commitment(
    commitment, commitment_type, commitment_category, commitment_unit, commitment_name, id_type
);
CREATE MACRO commitment_id(commitment, id_type) AS
    if(id_type = 'reservation', '/providers/Microsoft.Capacity', '/providers/Microsoft.BillingBenefits')
    || '/' || id_type || 'Orders/' || guid(commitment || ' order')
    || '/' || id_type || 's/' || guid(commitment);

-- What FOCUS says of each kind of charge, and the percentages of the contracted price that are billed
-- and effective: a commitment is billed when it is bought, and effective when it is used or lost.
CREATE TABLE kind AS FROM (VALUES
    ('usage', 'Usage', 'Usage-Based', 'Standard', 'Standard', NULL, NULL, 100, 100),
    ('spot', 'Usage', 'Usage-Based', 'Dynamic', 'Spot', NULL, NULL, 100, 100),
    ('reserved', 'Usage', 'Usage-Based', 'Committed', 'Committed Usage', 'Used', 'Amortized Charge', 0, 60),
    ('planned', 'Usage', 'Usage-Based', 'Committed', 'Committed Spend', 'Used', 'Amortized Charge', 0, 72),
    ('unused', 'Usage', 'Usage-Based', 'Committed', NULL, 'Unused', 'Amortized Charge', 0, 100),
    ('commitment', 'Purchase', 'Recurring', 'Standard', 'Standard', NULL, 'Principal', 100, 0),
    ('marketplace', 'Purchase', 'Recurring', 'Standard', 'Standard', NULL, NULL, 100, 100),
    ('purchase', 'Purchase', 'Recurring', 'Standard', 'Standard', NULL, NULL, 100, 100),
    ('credit', 'Credit', 'One-Time', NULL, NULL, NULL, NULL, 100, 100),
    ('refund', 'Usage', 'Usage-Based', 'Standard', 'Standard', NULL, NULL, 100, 100),
    ('rounding', 'Adjustment', 'One-Time', NULL, NULL, NULL, NULL, 100, 100)
) AS kind(
    kind, charge_category, charge_frequency, pricing_category, pricing_subcategory,
    commitment_status, amortization_class, billed_percent, effective_percent
);

-- The table `meter_line` is meters.csv: what the company buys. The kinds are those of the table above.
--   share   the number of resources of 670
--   price   USD for one pricing unit (`unit_text`) in West Europe, close to Azure's list price of 2024
--   amount  the usual quantity of a day, in pricing units; `block` units are one pricing unit
--   spread  of the quantities: full is always `amount`; hours are fewer for development, which is off
--           at the weekend; committed hours are sometimes idle; even is 0.2 to 1.8 times the amount;
--           heavy is mostly far less and at most 7 times it; monthly is one charge a month; late is
--           one that only a restated month has
CREATE TABLE meter AS
SELECT * REPLACE (share::INT AS share, block::INT AS block, price::DECIMAL(12, 6) AS price,
        amount::DECIMAL(12, 7) AS amount,
        map_from_entries(list_transform(str_split(details, '|'), lambda pair:
            {'key': split_part(pair, '=', 1), 'value': split_part(pair, '=', 2)})) AS details),
    rowid AS meter,
    token(concat_ws('/', meter_category, meter_subcategory, meter_name, kind), 12) AS sku_id,
    CASE WHEN kind = 'marketplace' THEN 'SaaS'
        WHEN type LIKE 'Microsoft.Compute/%' OR type LIKE 'Microsoft.Network/%' THEN 'IaaS'
        WHEN type IS NOT NULL THEN 'PaaS' END AS service_model
FROM meter_line;
CREATE TABLE slot AS
SELECT meter, commitment, row_number() OVER (
    ORDER BY (occurrence + (meter * 7 % 17 + 0.5::DOUBLE) / 17) / share, meter
) - 1 AS position
FROM (SELECT *, unnest(range(share)) AS occurrence FROM meter WHERE spread NOT IN ('monthly', 'late'));

CREATE TABLE resource AS
WITH drawn AS (
    SELECT n AS resource, scatter(n * 7 + salt) AS draws, n % (SELECT count(*) FROM slot) AS position
    FROM run, range(resources) AS numbers(n)
), named AS (
    SELECT drawn.*, meter.meter, meter.type, workload.*, region.*,
        upper(left(md5(draws::TEXT), 4)) AS suffix,
        'rg-' || name || coalesce('-' || environment, '') AS group_name
    FROM drawn JOIN slot USING (position) JOIN meter ON meter.meter = slot.meter
    JOIN workload ON workload.rowid = draw(draws, 48271) % 14
    -- Commitments are used in one region, others half of the time in the same.
    JOIN region ON region = if(slot.commitment IS NULL, greatest(draw(draws, 16807) % 6 - 2, 0), 0)
)
SELECT resource, meter, environment, cost_center, business_unit, region_id, region_name, sku_region,
    price_level, group_name, account_name(account) AS subscription_name,
    '/subscriptions/' || guid(subscription_name) AS subscription_id,
    if(type LIKE '%/storageAccounts', replace(name, '-', '') || lower(suffix), name || '-' || suffix)
        AS resource_name,
    subscription_id || '/resourceGroups/'
        || if(type LIKE 'Microsoft.Compute/%', upper(group_name), group_name)
        || '/providers/' || type || '/' || resource_name AS resource_id,
    map_without_nulls([
        {'key': 'app', 'value': name}, {'key': 'team', 'value': team},
        {'key': 'env', 'value': environment}, {'key': 'CostCenter', 'value': cost_center}
    ]) AS tags
FROM named ORDER BY resource;

CREATE TABLE charge AS
WITH day AS (
    SELECT unnest(generate_series(month, month + INTERVAL 1 MONTH - INTERVAL 1 DAY, INTERVAL 1 DAY)) AS day
    FROM run
), metered AS (
    SELECT meter.*, resource, day, price_level, restated,
        scatter(resource * 40009 + date_diff('day', DATE '2020-01-01', day) + salt) AS draws,
        1 + draw(draws, 39373) % 1000 AS scale,
        coalesce(environment IN ('dev', 'staging'), false) AND spread = 'hours' AS is_for_development,
        1000 + 22 * date_diff('month', DATE '2023-01-01', month) -- per mille, with a wobble of 2 %
            + ('0x' || left(sha256(concat_ws('/', seed, service, month)), 8))::BIGINT % 41 AS growth
    FROM run, day, resource JOIN meter USING (meter)
    WHERE NOT is_for_development OR isodow(day) < 6
), sized AS (
    SELECT *, CASE
        WHEN spread = 'hours' AND is_for_development THEN 11
        WHEN spread = 'hours' AND draws % 20 = 0 THEN 24 * millionths(scale * 1000)
        WHEN spread = 'committed' AND draws % 6 = 0 THEN 23 - scale % 9
        WHEN spread = 'even' THEN amount * millionths((200 + draw(draws, 69621) % 1601) * growth)
        WHEN spread = 'heavy' THEN amount * millionths(
            (1 + 7 * scale * scale * scale * scale * scale * scale // 1000000000000) * growth // 1000)
        ELSE amount
    END::DECIMAL(18, 7) AS quantity
    FROM metered
), priced AS (
    SELECT day, resource, meter, kind, commitment, (CASE WHEN block > 1
            THEN quantity::DECIMAL(18, 3) -- operations are whole numbers
            -- A restated month has measured one charge of 400 anew.
            ELSE quantity * if(restated AND spread IN ('even', 'heavy') AND draws % 400 = 0, 1.05, 1.00)
        END)::DECIMAL(18, 7) AS quantity,
        (price * millionths(price_level * 1000))::DECIMAL(18, 7) AS list_price,
        percent_of(list_price, if(kind = 'spot', 100, 93)) AS contracted_price
    FROM sized
), committed AS (
    SELECT day, meter, commitment, quantity, percent_of(contracted_price, effective_percent) AS price
    FROM priced JOIN kind USING (kind) WHERE commitment IS NOT NULL
), everything AS (
    FROM priced
    UNION ALL BY NAME
    SELECT day, min(meter) AS meter, 'unused' AS kind, commitment, 1 AS quantity,
        sum(dollars(price, 24 - quantity))::DECIMAL(18, 7) AS list_price, list_price AS contracted_price
    FROM committed GROUP BY day, commitment HAVING list_price > 0
    UNION ALL BY NAME
    SELECT (SELECT month FROM run) AS day, min(meter) AS meter, 'commitment' AS kind, commitment,
        1 AS quantity, sum(24 * price)::DECIMAL(18, 7) AS list_price, list_price AS contracted_price
    FROM committed GROUP BY commitment
    UNION ALL BY NAME
    SELECT month + INTERVAL 3 DAY AS day, meter, kind, amount AS quantity,
        price::DECIMAL(18, 7) AS list_price, list_price AS contracted_price
    FROM meter, run WHERE spread = 'monthly' OR spread = 'late' AND restated
), billed AS (
    SELECT *, percent_of(contracted_price, billed_percent) AS billed_price,
        percent_of(contracted_price, effective_percent) AS effective_price,
        NULL::DECIMAL(38, 18) AS adjustment
    FROM everything JOIN kind USING (kind)
), adjusted AS (
    FROM billed
    UNION ALL BY NAME -- an invoice is in whole cents
    SELECT month + INTERVAL 1 MONTH - INTERVAL 1 DAY AS day, 'rounding' AS kind,
        round(sum(euros(billed_price, quantity, exchange_rate)), 2)
            - sum(euros(billed_price, quantity, exchange_rate)) AS adjustment
    FROM billed, run WHERE restated GROUP BY month
)
SELECT row_number() OVER (ORDER BY day, kind, meter, resource) - 1 AS position, day, resource,
    meter, kind, commitment, quantity, list_price, contracted_price, billed_price, effective_price,
    adjustment
FROM adjusted ORDER BY position;

-- The charges of a range of positions, with all that is known of each. The joins keep their order.
CREATE MACRO charges(first_charge, end_charge) AS TABLE
SELECT *,
    day - if(kind = 'refund', INTERVAL 1 MONTH, INTERVAL 0 DAY) AS charge_start,
    if(charge_frequency = 'Recurring', month + INTERVAL 1 MONTH, charge_start + INTERVAL 1 DAY)
        AS charge_end,
    charge_category = 'Usage' AND kind <> 'unused' AS is_consumed,
    coalesce(adjustment, euros(billed_price, quantity, exchange_rate)) AS billed_cost,
    coalesce(adjustment, euros(effective_price, quantity, exchange_rate)) AS effective_cost,
    coalesce(adjustment, euros(contracted_price, quantity, exchange_rate)) AS contracted_cost,
    coalesce(adjustment, euros(list_price, quantity, exchange_rate)) AS list_cost
FROM charge CROSS JOIN run LEFT JOIN kind USING (kind) LEFT JOIN commitment USING (commitment)
LEFT JOIN (SELECT * EXCLUDE (kind, commitment, price) FROM meter) AS meter USING (meter)
LEFT JOIN (SELECT * EXCLUDE (meter) FROM resource) AS resource USING (resource)
WHERE position >= first_charge AND position < end_charge;
