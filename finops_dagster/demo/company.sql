-- The invented company of the example bills: its accounts, workloads, regions, services, commitments.
-- Product codes, names and regions are AWS's own; accounts, workloads and the seller are invented.

CREATE MACRO payer_account() AS '210987654321';
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

-- `price` is per mille of the price in us-east-1. Charges take their regions in turn from the cycle, in
-- which two regions have half of the places.
CREATE TABLE region AS FROM (VALUES
    ('', NULL, NULL, 1000), -- services without a region
    ('USE1', 'us-east-1', 'US East (N. Virginia)', 1000),
    ('USW2', 'us-west-2', 'US West (Oregon)', 1000),
    ('EUW1', 'eu-west-1', 'EU (Ireland)', 1080),
    ('EUC1', 'eu-central-1', 'EU (Frankfurt)', 1150),
    ('APS1', 'ap-southeast-1', 'Asia Pacific (Singapore)', 1240),
    ('APN1', 'ap-northeast-1', 'Asia Pacific (Tokyo)', 1290)
) AS region(prefix, region, location, price);
CREATE MACRO region_cycle(number) AS
    ['USE1', 'EUC1', 'USE1', 'USW2', 'EUC1', 'USE1', 'EUW1', 'APS1', 'USW2', 'APN1'][1 + number % 10];

-- `trend` is the monthly growth of usage, in per mille of January 2023.
CREATE TABLE service AS FROM (VALUES
    ('AmazonEC2', 'Amazon Elastic Compute Cloud', 'Compute', 26),
    ('AmazonRDS', 'Amazon Relational Database Service', 'Databases', 26),
    ('AmazonS3', 'Amazon Simple Storage Service', 'Storage', 36),
    ('AWSLambda', 'AWS Lambda', 'Compute', 45),
    ('AmazonCloudFront', 'Amazon CloudFront', 'Networking', 28),
    ('AmazonDynamoDB', 'Amazon DynamoDB', 'Databases', -4),
    ('AmazonEKS', 'Amazon Elastic Container Service for Kubernetes', 'Compute', 40),
    ('AmazonElastiCache', 'Amazon ElastiCache', 'Databases', 8),
    ('AmazonCloudWatch', 'AmazonCloudWatch', 'Management and Governance', 30),
    ('AWSDataTransfer', 'AWS Data Transfer', 'Networking', 28),
    ('AmazonSNS', 'Amazon Simple Notification Service', 'Integration', 10),
    ('AWSQueueService', 'Amazon Simple Queue Service', 'Integration', 12),
    ('awskms', 'AWS Key Management Service', 'Security', 15),
    ('ComputeSavingsPlans', 'Savings Plans for AWS Compute usage', 'Compute', 0),
    ('AWSSupportBusiness', 'AWS Support (Business)', 'Other', 22),
    ('4q1c8rzp7yv0w2k9m6xt3hbe5', 'Lakehouse Query Engine', 'Other', 5)
) AS service(product_code, service_name, service_category, trend);

-- For each line item type: the cost in percent of quantity times rate, the percentage of it that a
-- commitment pays for, and the words of FOCUS.
CREATE TABLE line_item_type AS FROM (VALUES
    ('Usage', 100, NULL, 'Anniversary', 'Usage', 'Usage-Based', 'Standard'),
    ('DiscountedUsage', 0, 60, 'Anniversary', 'Usage', 'Usage-Based', 'Committed'),
    ('SavingsPlanCoveredUsage', 100, 72, 'Anniversary', 'Usage', 'Usage-Based', 'Committed'),
    ('SavingsPlanNegation', -100, NULL, 'Anniversary', 'Adjustment', 'Usage-Based', NULL),
    ('SavingsPlanRecurringFee', 100, NULL, 'Anniversary', 'Purchase', 'Recurring', NULL),
    ('RIFee', 100, NULL, 'Anniversary', 'Purchase', 'Recurring', NULL),
    ('EdpDiscount', -6, NULL, 'Anniversary', 'Adjustment', 'One-Time', NULL),
    ('Credit', 100, NULL, 'Anniversary', 'Credit', 'One-Time', NULL),
    ('Refund', 100, NULL, 'Refund', 'Adjustment', 'One-Time', NULL),
    ('Tax', 100, NULL, 'Anniversary', 'Tax', 'One-Time', NULL),
    ('Fee', 100, NULL, 'Purchase', 'Purchase', 'One-Time', NULL)
) AS line_item_type(
    type, cost_percent, committed_percent, bill_type, charge_category, charge_frequency, pricing_category
);

-- The commitments: two Savings Plans in turn, and one reservation each of EC2 and RDS.
CREATE MACRO savings_plan_arn(number) AS 'arn:aws:savingsplans::' || payer_account() || ':savingsplan/'
    || ['5f0c7a52-81c4-4f0e-9d3b-2a6e1c9b7d10', 'b18e4d36-07aa-4c58-8e21-f39d50c6ab74'][1 + number % 2];
CREATE MACRO reservation_arn(product_code) AS if(product_code = 'AmazonEC2', 'arn:aws:ec2', 'arn:aws:rds')
    || ':us-east-1:' || payer_account()
    || if(product_code = 'AmazonEC2', ':reserved-instances/7d20c1f4-52be-4f38', ':ri:orders-and-payments-pg');

-- The attributes of an EC2 instance in AWS's price list, beside its size.
CREATE MACRO instance(size) AS MAP {
    'instanceTypeFamily': split_part(size, '.', 1),
    'physicalProcessor': if(size LIKE 'g5%', 'AMD EPYC 7R32', 'Intel Xeon Platinum 8175'),
    'clockSpeed': if(size LIKE 'g5%', '3.3 GHz', '3.1 GHz'), 'processorArchitecture': '64-bit',
    'processorFeatures': if(size LIKE 'g5%', 'AVX', 'Intel AVX; Intel AVX2; Intel Turbo'),
    'intelAvxAvailable': if(size LIKE 'g5%', 'No', 'Yes'),
    'intelAvx2Available': if(size LIKE 'g5%', 'No', 'Yes'),
    'intelTurboAvailable': if(size LIKE 'g5%', 'No', 'Yes'), 'networkPerformance': 'Up to 10 Gigabit',
    'currentGeneration': 'Yes', 'operatingSystem': 'Linux', 'preInstalledSw': 'NA', 'tenancy': 'Shared',
    'licenseModel': 'No License required', 'capacitystatus': 'Used', 'marketoption': 'OnDemand',
    'storage': 'EBS only', 'enhancedNetworkingSupported': 'Yes', 'vpcnetworkingsupport': 'true',
    'classicnetworkingsupport': 'false'
};
