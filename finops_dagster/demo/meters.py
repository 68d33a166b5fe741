"""The meters of the example bill: one row kind each, 1,000 rows in all.

Every 1,000 rows of a bill hold the same mix, so that totals grow with the rows and with the month
and nothing else. Rates are close to AWS's us-east-1 list prices of 2023.
"""

from dataclasses import replace

from finops_dagster.demo.catalog import (
    CLOUDFRONT,
    CLOUDWATCH,
    DYNAMODB,
    EC2,
    EKS,
    ELASTICACHE,
    KMS,
    LAMBDA,
    MARKETPLACE,
    RDS,
    S3,
    SAVINGS_PLANS,
    SNS,
    SQS,
    SUPPORT,
    TRANSFER,
    Meter,
    Service,
)


def _machine(
    instance_type: str, family: str, vcpu: int, gib: int, processor: str, clock: str, factor: int
) -> dict[str, str]:
    """Return the product columns AWS fills for an EC2 instance type."""
    intel = "Yes" if processor.startswith("Intel") else "No"
    return {
        "instanceType": instance_type,
        "instanceTypeFamily": instance_type.split(".")[0],
        "instanceFamily": family,
        "vcpu": str(vcpu),
        "memory": f"{gib} GiB",
        "physicalProcessor": processor,
        "clockSpeed": clock,
        "normalizationSizeFactor": str(factor),
        "processorArchitecture": "64-bit",
        "processorFeatures": "Intel AVX; Intel AVX2; Intel Turbo" if intel == "Yes" else "AVX",
        "networkPerformance": "Up to 10 Gigabit",
        "currentGeneration": "Yes",
        "operatingSystem": "Linux",
        "preInstalledSw": "NA",
        "licenseModel": "No License required",
        "tenancy": "Shared",
        "capacitystatus": "Used",
        "marketoption": "OnDemand",
        "storage": "EBS only",
        "enhancedNetworkingSupported": "Yes",
        "intelAvxAvailable": intel,
        "intelAvx2Available": intel,
        "intelTurboAvailable": intel,
        "vpcnetworkingsupport": "true",
        "classicnetworkingsupport": "false",
    }


def _database(instance_type: str, engine: str, code: str, deployment: str) -> dict[str, str]:
    """Return the product columns AWS fills for an RDS instance."""
    return {
        "instanceType": instance_type,
        "instanceFamily": "Memory optimized",
        "databaseEngine": engine,
        "engineCode": code,
        "deploymentOption": deployment,
        "licenseModel": "No license required",
        "normalizationSizeFactor": "32" if "4xlarge" in instance_type else "8",
        "currentGeneration": "Yes",
    }


def _transfer(kind: str, origin: str, target: str) -> dict[str, str]:
    """Return the product columns AWS fills for moved bytes, "here" being the row's region."""
    ends = {"from": origin, "to": target}
    cells = {"transferType": kind}
    for end, region in ends.items():
        cells[f"{end}Location"] = "External" if region == "External" else "{location}"
        cells[f"{end}LocationType"] = "Other" if region == "External" else "AWS Region"
        if region != "External":
            cells[f"{end}RegionCode"] = "{region}"
    return cells


def _instance_hours(share: int, rate: str, cells: dict[str, str]) -> Meter:
    """Return the On Demand hours of one EC2 instance type."""
    size = cells["instanceType"]
    # fmt: off
    return Meter(
        EC2, share, f"BoxUsage:{size}", "RunInstances", "Compute Instance",
        rate, "Hrs", "1", "hour", "even",
        f"${{rate}} per On Demand Linux {size} Instance Hour", "i-{hex}", cells, "zonal",
    )
    # fmt: on


def _database_hours(share: int, usage_type: str, rate: str, cells: dict[str, str]) -> Meter:
    """Return the On Demand hours of one RDS instance class."""
    what = f"{cells['instanceType']} {cells['deploymentOption']}"
    # fmt: off
    return Meter(
        RDS, share, usage_type, f"CreateDBInstance:{cells['engineCode']}", "Database Instance",
        rate, "Hrs", "1", "hour", "even",
        f"${{rate}} per RDS {what} instance hour (or partial hour) running"
        f" {cells['databaseEngine']}",
        "arn:aws:rds:{region}:{account}:db:{name}", cells,
    )
    # fmt: on


_XEON = ("Intel Xeon Platinum 8175", "3.1 GHz")
_T3_MEDIUM = _instance_hours(
    30, "0.0416", _machine("t3.medium", "General purpose", 2, 4, *_XEON, 2)
)
_M5_XL = _instance_hours(34, "0.192", _machine("m5.xlarge", "General purpose", 4, 16, *_XEON, 8))
_M5_4XL = _instance_hours(
    26, "0.768", _machine("m5.4xlarge", "General purpose", 16, 64, *_XEON, 32)
)
_R5_4XL = _instance_hours(
    22, "1.008", _machine("r5.4xlarge", "Memory optimized", 16, 128, *_XEON, 32)
)
_C5_9XL = _instance_hours(
    14, "1.53", _machine("c5.9xlarge", "Compute optimized", 36, 72, *_XEON, 72)
)
_G5_12XL = _instance_hours(
    7, "5.672", _machine("g5.12xlarge", "GPU instance", 48, 192, "AMD EPYC 7R32", "3.3 GHz", 96)
)
_POSTGRES = _database_hours(
    12, "Multi-AZUsage:db.r5.4xl", "4", _database("db.r5.4xlarge", "PostgreSQL", "0014", "Multi-AZ")
)
_POSTGRES_SMALL = _database_hours(
    16,
    "InstanceUsage:db.r5.xl",
    "0.5",
    _database("db.r5.xlarge", "PostgreSQL", "0014", "Single-AZ"),
)
_MYSQL = _database_hours(
    14, "InstanceUsage:db.m5.xl", "0.342", _database("db.m5.xlarge", "MySQL", "0002", "Single-AZ")
)

_BUCKET = "{name}-{account}"
_FUNCTION = "arn:aws:lambda:{region}:{account}:function:{name}"
_TABLE = "arn:aws:dynamodb:{region}:{account}:table/{name}"
_QUEUE = "arn:aws:sqs:{region}:{account}:{name}"
_TOPIC = "arn:aws:sns:{region}:{account}:{name}"
_CLUSTER = "arn:aws:eks:{region}:{account}:cluster/{name}"
_LOGS = "arn:aws:logs:{region}:{account}:log-group:/{name}"
_DISTRIBUTION = "arn:aws:cloudfront::{account}:distribution/{hex}"
_S3_CELLS = {"storageClass": "General Purpose", "volumeType": "Standard",
             "availability": "99.99%", "durability": "99.999999999%"}  # fmt: skip
_GP3_CELLS = {"volumeApiName": "gp3", "volumeType": "General Purpose", "storageMedia": "SSD-backed",
              "maxVolumeSize": "16 TiB", "maxIopsvolume": "16000",
              "maxThroughputvolume": "1000 MiB/s"}  # fmt: skip
_QUEUE_CELLS = {"group": "SQS-APIRequest-Tier1", "groupDescription": "Amazon SQS Requests",
                "queueType": "Standard", "messageDeliveryFrequency": "At Least Once",
                "messageDeliveryOrder": "Not Guaranteed"}  # fmt: skip
_TIER1 = {"group": "S3-API-Tier1", "groupDescription": "PUT/COPY/POST or LIST requests"}
_TIER2 = {"group": "S3-API-Tier2", "groupDescription": "GET and all other requests"}
_OUT = _transfer("AWS Outbound", "here", "External")
_IN = _transfer("AWS Inbound", "External", "here")
_REGIONAL = _transfer("IntraRegion", "here", "here")

# fmt: off
_USAGE = (
    _M5_XL, _M5_4XL, _R5_4XL, _C5_9XL, _T3_MEDIUM, _G5_12XL,
    _POSTGRES, _POSTGRES_SMALL, _MYSQL,
    Meter(EC2, 16, "SpotUsage:m5.4xlarge", "RunInstances:SV001", "Compute Instance",
          "0.2897", "Hrs", "1", "hour", "even",
          "m5.4xlarge Linux/UNIX Spot Instance-hour in {location}", "i-{hex}",
          {"instanceType": "m5.4xlarge"}, "zonal"),
    Meter(EC2, 56, "EBS:VolumeUsage.gp3", "CreateVolume-Gp3", "Storage",
          "0.08", "GB-Mo", "0.9", "hour", "heavy",
          "${rate} per GB-month of General Purpose (gp3) provisioned storage - {location}",
          "vol-{hex}", _GP3_CELLS),
    Meter(EC2, 12, "EBS:SnapshotUsage", "CreateSnapshot", "Storage Snapshot",
          "0.05", "GB-Mo", "4", "day", "heavy",
          "${rate} per GB-Month of snapshot data stored - {location}",
          "arn:aws:ec2:{region}:{account}:snapshot/snap-{hex}"),
    Meter(EC2, 14, "NatGateway-Hours", "NatGateway", "NAT Gateway",
          "0.045", "Hrs", "1", "hour", "full", "${rate} per NAT Gateway Hour",
          "arn:aws:ec2:{region}:{account}:natgateway/nat-{hex}",
          {"group": "NGW:NatGateway", "groupDescription": "Hourly charge for NAT Gateways"}),
    Meter(EC2, 22, "NatGateway-Bytes", "NatGateway", "NAT Gateway",
          "0.045", "GB", "14", "hour", "heavy",
          "${rate} per GB Data Processed by NAT Gateways",
          "arn:aws:ec2:{region}:{account}:natgateway/nat-{hex}",
          {"group": "NGW:NatGateway", "groupDescription": "Charge for per GB data processed"}),
    Meter(RDS, 18, "RDS:GP2-Storage", "CreateDBInstance:0014", "Database Storage",
          "0.115", "GB-Mo", "6", "day", "heavy",
          "${rate} per GB-month of provisioned gp2 storage running PostgreSQL",
          "arn:aws:rds:{region}:{account}:db:{name}",
          {"databaseEngine": "PostgreSQL", "deploymentOption": "Single-AZ", "volumeType": "gp2"}),
    Meter(S3, 34, "TimedStorage-ByteHrs", "StandardStorage", "Storage",
          "0.023", "GB-Mo", "70", "day", "heavy",
          "${rate} per GB - first 50 TB / month of storage used", _BUCKET, _S3_CELLS),
    Meter(S3, 14, "TimedStorage-GlacierByteHrs", "GlacierStorage", "Storage",
          "0.0036", "GB-Mo", "140", "day", "heavy",
          "${rate} per GB / month of storage used - Amazon Glacier", _BUCKET,
          {"storageClass": "Archive", "volumeType": "Amazon Glacier"}),
    Meter(S3, 35, "Requests-Tier1", "PutObject", "API Request",
          "0.000005", "Requests", "900", "hour", "heavy",
          "$0.005 per 1,000 PUT, COPY, POST, or LIST requests", _BUCKET, _TIER1, "whole"),
    Meter(S3, 42, "Requests-Tier2", "GetObject", "API Request",
          "0.0000004", "Requests", "2600", "hour", "heavy",
          "$0.004 per 10,000 GET and all other requests", _BUCKET, _TIER2, "whole"),
    Meter(S3, 12, "Requests-Tier2", "HeadBucket", "API Request",
          "0.0000004", "Requests", "2", "hour", "heavy",
          "$0.004 per 10,000 GET and all other requests", _BUCKET, _TIER2, "whole"),
    Meter(LAMBDA, 38, "Lambda-GB-Second", "Invoke", "Serverless",
          "0.0000166667", "Lambda-GB-Second", "26000", "hour", "heavy",
          'AWS Lambda - Total Compute - "{location}"', _FUNCTION,
          {"group": "AWS-Lambda-Duration",
           "groupDescription": "Invocation duration weighted by memory, in GB-s"}),
    Meter(LAMBDA, 28, "Request", "Invoke", "Serverless",
          "0.0000002", "Requests", "40000", "hour", "heavy",
          "AWS Lambda - Total Requests - {location}", _FUNCTION,
          {"group": "AWS-Lambda-Requests", "groupDescription": "Invocation call"}, "whole"),
    Meter(CLOUDFRONT, 26, "US-DataTransfer-Out-Bytes", "GET", "Data Transfer",
          "0.085", "GB", "18", "hour", "heavy",
          "${rate} per GB - first 10 TB / month data transfer out", _DISTRIBUTION,
          {"transferType": "CloudFront Outbound", "fromLocation": "United States",
           "toLocation": "External"}, "global"),
    Meter(CLOUDFRONT, 30, "EU-Requests-HTTPS-Proxy", "GET", "Request",
          "0.0000012", "Requests", "9000", "hour", "heavy",
          "$0.0120 per 10,000 Proxy HTTPS Requests", _DISTRIBUTION,
          {"requestType": "CloudFront-Request-HTTPS-Proxy"}, "global whole"),
    Meter(DYNAMODB, 28, "WriteRequestUnits", "PayPerRequestThroughput", "Amazon DynamoDB PayPer",
          "0.00000125", "WriteRequestUnits", "640000", "hour", "heavy",
          "$1.25 per million write request units ({location})", _TABLE,
          {"group": "DDB-WriteUnits"}, "whole"),
    Meter(DYNAMODB, 22, "ReadRequestUnits", "PayPerRequestThroughput", "Amazon DynamoDB PayPer",
          "0.00000025", "ReadRequestUnits", "520000", "hour", "heavy",
          "$0.25 per million read request units ({location})", _TABLE,
          {"group": "DDB-ReadUnits"}, "whole"),
    Meter(DYNAMODB, 8, "TimedStorage-ByteHrs", "StandardStorage", "Database Storage",
          "0.25", "GB-Mo", "0.0000028", "day", "heavy",
          "${rate} per GB-Month of storage used beyond first 25 free GB-Months", _TABLE),
    Meter(EKS, 18, "AmazonEKS-Hours:perCluster", "CreateOperation", "Compute",
          "0.1", "Hours", "1", "hour", "full", "Amazon EKS cluster usage in {location}", _CLUSTER),
    Meter(EKS, 14, "Fargate-vCPU-Hours:perCPU", "FargatePod", "Compute",
          "0.04048", "hours", "11", "hour", "heavy",
          "AWS Fargate - vCPU for Amazon EKS - {location}",
          "arn:aws:eks:{region}:{account}:pod/{name}/{hex}"),
    Meter(ELASTICACHE, 12, "NodeUsage:cache.r6g.xlarge", "CreateCacheCluster:0002",
          "Cache Instance", "0.411", "Hrs", "1", "hour", "even",
          "${rate} per R6g Cache node-hour (or partial hour) running Redis",
          "arn:aws:elasticache:{region}:{account}:cluster:{name}",
          {"instanceType": "cache.r6g.xlarge", "instanceFamily": "Memory optimized", "vcpu": "4",
           "memory": "26.32 GiB", "currentGeneration": "Yes"}),
    Meter(CLOUDWATCH, 24, "DataProcessing-Bytes", "PutLogEvents", "Data Payload",
          "0.5", "GB", "1.3", "hour", "heavy",
          "${rate} per GB custom log data ingested in {location}", _LOGS,
          {"group": "Ingested Logs"}),
    Meter(CLOUDWATCH, 20, "CW:Requests", "GetMetricData", "API Request",
          "0.00001", "Metrics", "300", "hour", "heavy",
          "$0.01 per 1,000 metrics requested using GetMetricData API", None, {}, "whole"),
    Meter(CLOUDWATCH, 14, "CW:MetricMonitorUsage", "MetricStorage:AWS/EC2", "Metric",
          "0.3", "Metrics", "0.9", "hour", "heavy",
          "$0.30 per metric-month for the first 10,000 metrics - {location}"),
    Meter(TRANSFER, 24, "DataTransfer-Out-Bytes", "RunInstances", "Data Transfer",
          "0.09", "GB", "9", "hour", "heavy",
          "${rate} per GB - first 10 TB / month data transfer out beyond the global free tier",
          "i-{hex}", _OUT),
    Meter(TRANSFER, 16, "DataTransfer-Regional-Bytes", "InterZone-In", "Data Transfer",
          "0.01", "GB", "5", "hour", "heavy",
          "${rate} per GB - regional data transfer - in/out/between EC2 AZs", "i-{hex}",
          _REGIONAL),
    Meter(TRANSFER, 12, "DataTransfer-In-Bytes", "RunInstances", "Data Transfer",
          "0", "GB", "7", "hour", "heavy",
          "${rate} per GB - data transfer in per month", "i-{hex}", _IN),
    Meter(TRANSFER, 14, "AWS-Out-Bytes", "ReadLocation", "Data Transfer",
          "0.02", "GB", "0.0000031", "hour", "heavy",
          "${rate} per GB - {location} data transfer to other regions", _BUCKET,
          _transfer("InterRegion Outbound", "here", "here")),
    Meter(SNS, 18, "Requests-Tier1", "Publish", "API Request",
          "0.0000005", "Requests", "700", "hour", "heavy",
          "$0.50 per 1 million Amazon SNS API Requests", _TOPIC, {}, "whole"),
    Meter(SQS, 28, "Requests-Tier1", "ReceiveMessage", "API Request",
          "0.0000004", "Requests", "2400", "hour", "heavy",
          "$0.40 per million Amazon SQS standard requests in Tier1 in {location}", _QUEUE,
          _QUEUE_CELLS, "whole"),
    Meter(SQS, 10, "Requests-Tier1", "SendMessage", "API Request",
          "0", "Requests", "60", "hour", "heavy",
          "First 1,000,000 Amazon SQS Requests per month are free", _QUEUE, _QUEUE_CELLS, "whole"),
    Meter(KMS, 20, "KMS-Requests", "Decrypt", "API Request",
          "0.000003", "Requests", "60", "hour", "heavy",
          "$0.03 per 10,000 KMS requests - \"symmetric\" keys in {location}",
          "arn:aws:kms:{region}:{account}:key/{hex}", {}, "whole"),
    Meter(MARKETPLACE, 6, "SoftwareUsage:m5.4xlarge", "Hourly", "AWS Marketplace",
          "0.84", "Hrs", "1", "hour", "even",
          'AWS Marketplace software usage|"Lakehouse Query Engine, Standard"|{region}|m5.4xlarge'),
)

# Commitments: always-on machines that an hourly Savings Plan or a reservation pays for.
_COMMITTED = (
    replace(_M5_4XL, share=16, kind="SavingsPlanCoveredUsage", spread="full",
            follower="SavingsPlanNegation"),
    replace(_R5_4XL, share=14, kind="SavingsPlanCoveredUsage", spread="full",
            follower="SavingsPlanNegation"),
    replace(_C5_9XL, share=6, kind="SavingsPlanCoveredUsage", spread="full",
            follower="SavingsPlanNegation"),
    replace(_M5_XL, share=16, kind="DiscountedUsage", spread="full",
            description="Linux/UNIX (Amazon VPC), m5.xlarge reserved instance applied"),
    replace(_POSTGRES, share=4, kind="DiscountedUsage", spread="full",
            description="PostgreSQL, db.r5.4xl (Multi-AZ) reserved instance applied"),
    Meter(SAVINGS_PLANS, 2, "ComputeSP:1yrNoUpfront", None, "ComputeSavingsPlans",
          "0", "Hrs", "1", "hour", "full", "1 year No Upfront Compute Savings Plan",
          flags="global", kind="SavingsPlanRecurringFee"),
    Meter(EC2, 1, "HeavyUsage:m5.xlarge", "RunInstances", "Compute Instance",
          "0", "Hrs", "1", "month", "full",
          "Sign up charge or recurring fee for Linux/UNIX (Amazon VPC), m5.xlarge reservations",
          attributes={"instanceType": "m5.xlarge"}, kind="RIFee"),
    Meter(RDS, 1, "HeavyUsage:db.r5.4xl", "CreateDBInstance:0014", "Database Instance",
          "0", "Hrs", "1", "month", "full",
          "Recurring fee for PostgreSQL, db.r5.4xl (Multi-AZ) reservations",
          attributes={"instanceType": "db.r5.4xlarge"}, kind="RIFee"),
)

# A private pricing agreement takes a part off these rows in a row of its own.
_DISCOUNTED = (
    replace(_M5_4XL, share=6, follower="EdpDiscount"),
    replace(_POSTGRES, share=2, follower="EdpDiscount"),
)


def _lump(
    service: Service, share: int, kind: str, charge: str, interval: str, description: str
) -> Meter:
    """Return a charge or a gift that has a price and no usage; `charge` is its usual USD."""
    return Meter(service, share, None, None, None, charge, None, "1", interval, "even",
                 description, flags="global lump", kind=kind)


_LUMPS = (
    _lump(SUPPORT, 1, "Fee", "26", "month", "7% of monthly AWS usage from $10,000-$80,000"),
    _lump(EC2, 2, "Tax", "7", "month", "Tax for product code AmazonEC2"),
    _lump(RDS, 1, "Tax", "5", "month", "Tax for product code AmazonRDS"),
    _lump(S3, 1, "Tax", "2.5", "month", "Tax for product code AmazonS3"),
    _lump(CLOUDFRONT, 1, "Tax", "2", "month", "Tax for product code AmazonCloudFront"),
    _lump(LAMBDA, 1, "Credit", "-2.5", "month", 'Promotional credit, "Serverless Launch" program'),
    _lump(EC2, 1, "Refund", "-1.8", "previous",
          'Refund for "AmazonEC2", usage of an earlier month, case 1187'),
)

METERS = (*_USAGE, *_COMMITTED, *_DISCOUNTED, *_LUMPS)

# What AWS adds to a month after it has ended.
LATE_METERS = (
    _lump(EC2, 1, "Refund", "-3.2", "day", 'Service level credit, "Region availability", EC2'),
    _lump(RDS, 1, "Refund", "-2.1", "previous", "Refund for AmazonRDS, usage of an earlier month"),
    _lump(S3, 1, "Credit", "-1.4", "month", "Migration Acceleration Program credit"),
    _lump(SUPPORT, 1, "Credit", "-0.9", "month", 'Credit for "AWS Support (Business)", prorated'),
)
# fmt: on
