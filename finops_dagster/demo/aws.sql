-- What the company buys AWS's services by: regions, line item types, commitments, instances.
-- Product codes, names and regions are AWS's own; the Marketplace seller is invented.

CREATE MACRO payer_account() AS '210987654321';

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
    ('SavingsPlanRecurringFee', 100, NULL, 'Anniversary', 'Purchase', 'Recurring', 'Standard'),
    ('RIFee', 100, NULL, 'Anniversary', 'Purchase', 'Recurring', 'Standard'),
    ('EdpDiscount', -6, NULL, 'Anniversary', 'Adjustment', 'One-Time', NULL),
    ('Credit', 100, NULL, 'Anniversary', 'Credit', 'One-Time', NULL),
    ('Refund', 100, NULL, 'Refund', 'Adjustment', 'One-Time', NULL),
    ('Tax', 100, NULL, 'Anniversary', 'Tax', 'One-Time', NULL),
    ('Fee', 100, NULL, 'Purchase', 'Purchase', 'One-Time', 'Standard')
) AS line_item_type(
    type, cost_percent, committed_percent, bill_type, charge_category, charge_frequency, pricing_category
);

-- AWS spells units otherwise in FOCUS.
CREATE MACRO focus_unit(unit) AS CASE
    WHEN unit IN ('Hrs', 'hours') THEN 'Hours'
    WHEN unit = 'GB-Mo' THEN 'GB-Months'
    WHEN unit = 'Lambda-GB-Second' THEN 'Lambda-GB-Seconds'
    ELSE unit
END;

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
