"""The imagined company of the example bills: the services it buys, where, and for which workloads.

Product codes, names and regions are AWS's own; accounts, workloads and the seller are invented.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

PAYER_ACCOUNT = "210987654321"
BUCKET = "example-company-billing"
AWS_ENTITY = "Amazon Web Services, Inc."
SELLER_ENTITY = 'Lakehouse Analytics, Inc. d/b/a "Lakehouse"'


@dataclass(frozen=True)
class Service:
    """One AWS product; `growth` is per mille of its January 2023 usage added every month."""

    product_code: str
    name: str
    growth: int
    servicecode: str | None = None  # where it differs from the product code
    seller: str = AWS_ENTITY


@dataclass(frozen=True)
class Region:
    """One AWS region; `price` is per mille of the us-east-1 rate."""

    code: str | None
    location: str | None
    prefix: str
    price: int


@dataclass(frozen=True)
class Workload:
    """One tagged group of resources and the linked account that pays for it."""

    account: str
    name: str
    team: str | None
    environment: str | None
    cost_center: str | None
    business_unit: str

    @property
    def created_by(self) -> str:
        """What AWS writes into aws:createdBy: the principal's type, id and name."""
        if self.environment is None:
            return f"Root:{self.account}"
        return f"AssumedRole:AROA{self.account}XYZQ:deploy-{self.name}"

    @property
    def data_classification(self) -> str | None:
        """A tag that few resources have."""
        return "confidential, personal data" if self.business_unit == "Data" else None


@dataclass(frozen=True)
class Meter:
    """One thing AWS counts, and how its rows look.

    `share` is the number of rows in each 1,000, `rate` USD per `unit`, `amount` the usual quantity
    of a row. `interval` is hour, day, month, or previous (a day of the month before). `spread`
    says how quantities vary: "full" is always `amount`, "even" 0.2 to 1.8 times it, "heavy" mostly
    far less and at most 7 times it. `flags`: "whole" counts in whole units, "global" has no
    region, "zonal" names an availability zone, "lump" varies the price of one unit instead of the
    quantity. `follower` is the type of the row that comes next and offsets this one.
    """

    service: Service
    share: int
    usage_type: str | None
    operation: str | None
    family: str | None
    rate: str
    unit: str | None
    amount: str
    interval: str
    spread: str
    description: str
    resource: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    flags: str = ""
    kind: str = "Usage"
    follower: str | None = None


EC2 = Service("AmazonEC2", "Amazon Elastic Compute Cloud", 26)
RDS = Service("AmazonRDS", "Amazon Relational Database Service", 26)
S3 = Service("AmazonS3", "Amazon Simple Storage Service", 36)
LAMBDA = Service("AWSLambda", "AWS Lambda", 45)
CLOUDFRONT = Service("AmazonCloudFront", "Amazon CloudFront", 28)
DYNAMODB = Service("AmazonDynamoDB", "Amazon DynamoDB", -4)
EKS = Service("AmazonEKS", "Amazon Elastic Container Service for Kubernetes", 40)
ELASTICACHE = Service("AmazonElastiCache", "Amazon ElastiCache", 8)
CLOUDWATCH = Service("AmazonCloudWatch", "AmazonCloudWatch", 30)
TRANSFER = Service("AWSDataTransfer", "AWS Data Transfer", 28)
SNS = Service("AmazonSNS", "Amazon Simple Notification Service", 10)
SQS = Service("AWSQueueService", "Amazon Simple Queue Service", 12)
KMS = Service("awskms", "AWS Key Management Service", 15)
SAVINGS_PLANS = Service("ComputeSavingsPlans", "Savings Plans for AWS Compute usage", 0)
SUPPORT = Service("AWSSupportBusiness", "AWS Support (Business)", 22)
MARKETPLACE = Service(
    "4q1c8rzp7yv0w2k9m6xt3hbe5", "Lakehouse Query Engine", 5, "AWSMarketplace", SELLER_ENTITY
)

REGIONS = {
    region.prefix: region
    for region in (
        Region("us-east-1", "US East (N. Virginia)", "USE1", 1000),
        Region("us-west-2", "US West (Oregon)", "USW2", 1000),
        Region("eu-west-1", "EU (Ireland)", "EUW1", 1080),
        Region("eu-central-1", "EU (Frankfurt)", "EUC1", 1150),
        Region("ap-southeast-1", "Asia Pacific (Singapore)", "APS1", 1240),
        Region("ap-northeast-1", "Asia Pacific (Tokyo)", "APN1", 1290),
    )
}
# The regions of a meter's rows, one after the other: half the usage is in two regions.
REGION_CYCLE = ("USE1", "EUC1", "USE1", "USW2", "EUC1", "USE1", "EUW1", "APS1", "USW2", "APN1")
NOWHERE = Region(None, None, "", 1000)

WORKLOADS = (
    Workload("310245178860", "orders-api", "checkout", "production", "CC-1200", "Shop"),
    Workload("310245178860", "catalog-search", "検索", "production", "CC-1210", "Shop"),
    Workload("310245178860", "web-frontend", "storefront", "production", "CC-1200", "Shop"),
    Workload("310245178860", "payments", "checkout", "production", "CC-1230", "Shop"),
    Workload("004417290135", "lake-ingest", "équipe données", "production", "CC-3100", "Data"),
    Workload("004417290135", "warehouse-loads", "équipe données", "Production", "CC-3100", "Data"),
    Workload("004417290135", "ml-training", "ML, ranking", "research", "CC-3150", "Data"),
    Workload("518830047726", "orders-api", "checkout", "staging", "CC-1200", "Shop"),
    Workload("518830047726", "load-test", None, "staging", None, "Shop"),
    Workload("627741900318", "sandbox", None, "dev", None, "Engineering"),
    Workload("627741900318", "ci-runners", "Plattform Köln", "dev", "CC-2100", "Engineering"),
    Workload("739205516642", "observability", "Plattform Köln", "shared", "CC-2100", "Engineering"),
    Workload("739205516642", "identity", "security", "shared", "CC-2200", "Engineering"),
    Workload(PAYER_ACCOUNT, "landing-zone", None, None, None, "Unallocated"),
)

ACCOUNT_NAMES = {
    PAYER_ACCOUNT: "management",
    "310245178860": "shop-production",
    "004417290135": "data-platform",
    "518830047726": "shop-staging",
    "627741900318": "engineering-dev",
    "739205516642": "engineering-shared",
}

# Where a workload's tags stand in a bill. `user:Name` is a resource's own and not among them.
TAG_ATTRIBUTES = {
    "resourceTags/aws:createdBy": "created_by",
    "resourceTags/user:app": "name",
    "resourceTags/user:cost-center": "cost_center",
    "resourceTags/user:data classification": "data_classification",
    "resourceTags/user:environment": "environment",
    "resourceTags/user:team": "team",
}
