"""Make the lookup tables of AWS from the tables in this file, which are our own.

    python -m finops_dagster.focus.lookups.make_aws

The product codes are those of AWS's price list, and of the MIT-licensed aws_category_mapping.csv of
https://github.com/finopsfoundation/focus_converters. That table has a category for each code; here
a category and a subcategory are chosen for each ServiceName.

aws_services.csv        product code -> ServiceName
aws_categories.csv      ServiceName -> ServiceCategory, ServiceSubcategory
aws_regions.csv         region code -> RegionName, as CUR calls the location
aws_units.csv           AWS's unit, in lower case -> PricingUnit in FOCUS's spelling
aws_resource_types.csv  the beginning of an ARN or of an id, or else a product code -> ResourceType
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

_FOLDER = Path(__file__).parent

# A line is a ServiceName and its product codes; the name is that of AWS's bills. Several codes have
# one name where AWS says so.
_SERVICES = """
[AI and Machine Learning / AI Platforms]
Amazon Augmented AI: AmazonA2I
Amazon Comprehend: comprehend
Amazon Forecast: AmazonForecast
Amazon Fraud Detector: AmazonFraudDetector
Amazon HealthLake: AmazonHealthLake
Amazon Kendra: AmazonKendra
Amazon Lookout for Equipment: AmazonLookoutEquipment
Amazon Lookout for Metrics: AmazonLookoutMetrics
Amazon Lookout for Vision: AmazonLookoutVision
Amazon Monitron: AmazonMonitron
Amazon Omics: AmazonOmics
Amazon Personalize: AmazonPersonalize
Amazon Rekognition: AmazonRekognition
Amazon Textract: AmazonTextract
AWS Panorama: AWSPanorama
[AI and Machine Learning / Bots]
Amazon Lex: AmazonLex
[AI and Machine Learning / Generative AI]
Amazon Bedrock: AmazonBedrock AmazonBedrockService AmazonBedrockFoundationModels
Amazon Bedrock AgentCore: AmazonBedrockAgentCore
Amazon CodeWhisperer: AmazonCodeWhisperer
Amazon Q: AmazonQ
[AI and Machine Learning / Machine Learning]
Amazon Elastic Inference: AmazonEI
Amazon SageMaker: AmazonSageMaker
AWS DeepRacer: AWSDeepRacer
Savings Plans for AWS Machine Learning: MachineLearningSavingsPlans
[AI and Machine Learning / Natural Language Processing]
Amazon Polly: AmazonPolly
Amazon Transcribe: transcribe
Amazon Translate: translate
[Analytics / Analytics Platforms]
Amazon DataZone: AmazonDataZone
Amazon FinSpace: AmazonFinSpace
AWS Clean Rooms: AWSCleanRooms
AWS Data Exchange: AWSDataExchange
AWS Lake Formation: AWSLakeFormation
[Analytics / Business Intelligence]
Amazon QuickSight: AmazonQuickSight
[Analytics / Data Processing]
Amazon Athena: AmazonAthena
Amazon Elastic MapReduce: ElasticMapReduce
AWS Data Pipeline: datapipeline
AWS Entity Resolution: AWSEntityResolution
AWS Glue: AWSGlue
AWS Glue Elastic Views: AWSGlueElasticViews
[Analytics / Search]
Amazon CloudSearch: AmazonCloudSearch
Amazon OpenSearch Service: AmazonES
[Analytics / Streaming Analytics]
Amazon Kinesis: AmazonKinesis
Amazon Kinesis Analytics: AmazonKinesisAnalytics
Amazon Kinesis Firehose: AmazonKinesisFirehose
Amazon Managed Streaming for Apache Kafka: AmazonMSK
[Business Applications / Productivity and Collaboration]
Alexa for Business: A4B
Amazon Chime: AmazonChime AmazonChimeFeatures AmazonChimeServices
Amazon Chime Business Calling: AmazonChimeBusinessCalling
Amazon Chime Call Me: AmazonChimeCallMe AmazonChimeCallMeAMCS
Amazon Chime Dial-in: AmazonChimeDialin AmazonChimeDialInAMCS
Amazon Chime Voice Connector: AmazonChimeVoiceConnector
Amazon Connect: AmazonConnect
Amazon Connect Customer Profiles: CustomerProfiles
Amazon Connect Wisdom: AWSWisdom
Amazon Honeycode: AmazonHoneycode
Amazon Pinpoint: AmazonPinpoint
Amazon Simple Email Service: AmazonSES
Amazon WorkDocs: AmazonWorkDocs
Amazon WorkMail: AmazonWorkMail
AWS End User Messaging: AWSEndUserMessaging AWSEndUserMessaging3pFees
AWS Wickr: AWSWickr
Contact Center Telecommunications (service sold by AMCS, LLC): ContactCenterTelecomm
Contact Lens for Amazon Connect: ContactLensAmazonConnect
[Business Applications / Other (Business Applications)]
AWS Supply Chain: AWSSupplyChain
[Compute / Containers]
Amazon EC2 Container Registry (ECR): AmazonECR
Amazon Elastic Container Registry Public: AmazonECRPublic
Amazon Elastic Container Service: AmazonECS
Amazon Elastic Container Service for Kubernetes: AmazonEKS
Red Hat OpenShift Service on AWS: ROSA
[Compute / End User Computing]
Amazon AppStream: AmazonAppStream
Amazon WorkSpaces: AmazonWorkSpaces
Amazon WorkSpaces Application Manager: AmazonWAM
Amazon WorkSpaces Thin Client: AmazonWorkSpacesThinClient
Amazon WorkSpaces Web: AmazonWorkSpacesWeb
Amazon WorkLink: AmazonWorkLink
[Compute / Quantum Compute]
Amazon Braket: AmazonBraket
[Compute / Serverless Compute]
AWS App Runner: AWSAppRunner
AWS Lambda: AWSLambda
[Compute / Virtual Machines]
Amazon Elastic Compute Cloud: AmazonEC2
Amazon Elastic VMware Service: AmazonEVS
Amazon Lightsail: AmazonLightsail
AWS Parallel Computing Service: AWSParallelComputingService AWSPCS
EC2 Image Builder: EC2ImageBuilder
Savings Plans for AWS Compute usage: ComputeSavingsPlans
VMware Cloud on AWS: VMwareCloudOnAWS
[Compute / Other (Compute)]
AWS Outposts: AWSOutposts
AWS SimSpace Weaver: SimSpaceWeaver
[Databases / Caching]
Amazon DynamoDB Accelerator (DAX): AmazonDAX
Amazon ElastiCache: AmazonElastiCache
Amazon MemoryDB: AmazonMemoryDB
[Databases / Data Warehouses]
Amazon Redshift: AmazonRedshift
[Databases / Ledger Databases]
Amazon Managed Blockchain: AmazonManagedBlockchain
Amazon Quantum Ledger Database: AmazonQLDB
[Databases / NoSQL Databases]
Amazon DocumentDB (with MongoDB compatibility): AmazonDocDB
Amazon DynamoDB: AmazonDynamoDB
Amazon Keyspaces (for Apache Cassandra): AmazonMCS
Amazon Neptune: AmazonNeptune
Amazon SimpleDB: AmazonSimpleDB
[Databases / Relational Databases]
Amazon Aurora DSQL: AmazonAuroraDSQL AuroraDSQL
Amazon Relational Database Service: AmazonRDS
Savings Plans for AWS Database usage: DatabaseSavingsPlans
[Databases / Time Series Databases]
Amazon Timestream: AmazonTimestream
[Developer Tools / Continuous Integration and Deployment]
AWS CodeDeploy: AWSCodeDeploy
AWS CodePipeline: AWSCodePipeline
CodeBuild: CodeBuild
[Developer Tools / Developer Platforms]
Amazon CodeCatalyst: CodeCatalyst
AWS Amplify: AWSAmplify
[Developer Tools / Development Environments]
AWS Cloud9: AWSCloud9
[Developer Tools / Quality Assurance]
Amazon CodeGuru: CodeGuru
AWS Device Farm: AWSDeviceFarm
AWS Fault Injection Simulator: AWSFIS
AWS X-Ray: AWSXRay
[Developer Tools / Source Code Management]
AWS CodeArtifact: AWSCodeArtifact
AWS CodeCommit: AWSCodeCommit
[Identity / Identity and Access Management]
Amazon Cognito: AmazonCognito
Amazon Cognito Sync: AmazonCognitoSync
Amazon Verified Permissions: AmazonVerifiedPermissions
AWS Directory Service: AWSDirectoryService
AWS IAM Access Analyzer: AWSIAMAccessAnalyzer
[Integration / API Management]
Amazon API Gateway: AmazonApiGateway
AWS AppSync: AWSAppSync
[Integration / Messaging]
Amazon MQ: AmazonMQ
Amazon Simple Notification Service: AmazonSNS
Amazon Simple Queue Service: AWSQueueService
AWS Events: AWSEvents
[Integration / Workflow Orchestration]
Amazon AppFlow: AmazonAppFlow AppFlow
Amazon Managed Workflows for Apache Airflow: AmazonMWAA
Amazon Simple Workflow Service: AmazonSWF
AWS AppFabric: AWSAppFabric
AWS B2B Data Interchange: AWSB2Bi
AWS Step Functions: AmazonStates
[Internet of Things / IoT Analytics]
AWS IoT Analytics: AWSIoTAnalytics
AWS IoT Events: AWSIoTEvents
AWS IoT SiteWise: AWSIoTSiteWise
[Internet of Things / IoT Platforms]
Amazon Location Service: AmazonLocationService
AWS Greengrass: AWSGreengrass
AWS IoT: AWSIoT
AWS IoT 1-Click: AWSIoT1Click
AWS IoT Device Defender: IoTDeviceDefender
AWS IoT Device Management: IoTDeviceManagement
AWS IoT FleetWise: AWSIoTFleetWise
AWS IoT Things Graph: AWSIoTThingsGraph
AWS IoT TwinMaker: IoTTwinMaker
[Management and Governance / Architecture]
AWS Service Catalog: AWSServiceCatalog
[Management and Governance / Compliance]
AWS Audit Manager: auditmanager
AWS Config: AWSConfig
[Management and Governance / Cost Management]
AWS Billing Conductor: AWSBillingConductor
AWS Budgets: AWSBudgets
AWS Cost Explorer: AWSCostExplorer
[Management and Governance / Disaster Recovery]
AWS Elastic Disaster Recovery: AWSElasticDisasterRecovery
AWS Resilience Hub: AWSResilienceHub
[Management and Governance / Endpoint Management]
AWS Systems Manager: AWSSystemsManager
[Management and Governance / Observability]
Amazon DevOps Guru: AmazonDevOpsGuru
Amazon Managed Grafana: AmazonGrafana
Amazon Managed Service for Prometheus: AmazonPrometheus
AmazonCloudWatch: AmazonCloudWatch
AWS CloudTrail: AWSCloudTrail
[Management and Governance / Support]
AWS Incident Detection and Response: AWSIncidentDetectionandResponse
AWS Support (Business): AWSSupportBusiness
AWS Support (Developer): AWSDeveloperSupport
AWS Support (Enterprise): AWSSupportEnterprise
AWS Support (Enterprise On-Ramp): AWSEnterpriseOnRamp
[Management and Governance / Other (Management and Governance)]
AWS CloudFormation: AWSCloudFormation
AWS OpsWorks: OpsWorks
[Media / Content Creation]
Amazon Nimble Studio: nimble
AWS Deadline Cloud: AWSDeadlineCloud
AWS Elemental MediaConvert: AWSElementalMediaConvert
Amazon Elastic Transcoder: AmazonETS
[Media / Gaming]
Amazon GameLift: AmazonGameLift
Amazon GameLift Streams: AmazonGameLiftStreams
Amazon GameSparks: AmazonGameSparks
[Media / Media Streaming]
Amazon Interactive Video Service: AmazonIVS
Amazon Kinesis Video Streams: AmazonKinesisVideo
AWS Elemental MediaConnect: AWSMediaConnect
AWS Elemental MediaLive: AWSElementalMediaLive
AWS Elemental MediaPackage: AWSElementalMediaPackage
AWS Elemental MediaStore: AWSElementalMediaStore
AWS Elemental MediaTailor: AWSElementalMediaTailor
[Media / Mixed Reality]
Amazon Sumerian: AmazonSumerian
[Migration / Data Migration]
AWS Database Migration Service: AWSDatabaseMigrationSvc
AWS DataSync: AWSDataSync
AWS Import/Export Snowball: IngestionServiceSnowball SnowballExtraDays
AWS Transfer Family: AWSTransfer
[Migration / Resource Migration]
AWS Application Migration Service: AWSApplicationMigrationSvc
AWS Mainframe Modernization Service: AWSM2
AWS Migration Hub Refactor Spaces: AWSMigrationHubRefactorSpaces
[Networking / Application Networking]
AWS App Mesh: AWSAppMesh
AWS Cloud Map: AWSCloudMap
Elastic Load Balancing: AWSELB
[Networking / Content Delivery]
Amazon CloudFront: AmazonCloudFront
[Networking / Network Connectivity]
AWS Cloud WAN: AWSCloudWAN
AWS Direct Connect: AWSDirectConnect
AWS Ground Station: AWSGroundStation
AWS Private 5G: AWSPrivate5G
[Networking / Network Infrastructure]
Amazon Virtual Private Cloud: AmazonVPC
AWS Data Transfer: AWSDataTransfer
[Networking / Network Routing]
Amazon Registrar: AmazonRegistrar
Amazon Route 53: AmazonRoute53
AWS Global Accelerator: AWSGlobalAccelerator
[Networking / Network Security]
AWS Firewall Manager: AWSFMS
AWS Network Firewall: AWSNetworkFirewall
AWS Shield: AWSShield
AWS WAF: awswaf
[Security / Secret Management]
AWS Certificate Manager: AWSCertificateManager
AWS CloudHSM: CloudHSM
AWS Key Management Service: awskms
AWS Payment Cryptography: AWSPaymentCryptography
AWS Secrets Manager: AWSSecretsManager
[Security / Security Posture Management]
Amazon Inspector: AmazonInspector AmazonInspectorV2
Amazon Security Lake: AmazonSecurityLake
AWS Security Hub: AWSSecurityHub
[Security / Threat Detection and Response]
Amazon Detective: AmazonDetective
Amazon GuardDuty: AmazonGuardDuty
Amazon Macie: AmazonMacie
AWS Security Incident Response: AWSSecurityIncidentResponse
[Storage / Backup Storage]
AWS Backup: AWSBackup
[Storage / Block Storage]
Amazon Elastic Block Store: AmazonEBS
[Storage / File Storage]
Amazon Elastic File System: AmazonEFS
Amazon FSx: AmazonFSx
[Storage / Object Storage]
Amazon Glacier: AmazonGlacier
Amazon S3 Glacier Deep Archive: AmazonS3GlacierDeepArchive
Amazon Simple Storage Service: AmazonS3
[Storage / Storage Platforms]
AWS Storage Gateway: AWSStorageGateway
AWS Storage Gateway Deep Archive: AWSStorageGatewayDeepArchive
[Other / Other (Other)]
AWS RoboMaker: AWSRoboMaker
"""

_REGIONS = """
af-south-1 Africa (Cape Town)
ap-east-1 Asia Pacific (Hong Kong)
ap-east-2 Asia Pacific (Taipei)
ap-northeast-1 Asia Pacific (Tokyo)
ap-northeast-2 Asia Pacific (Seoul)
ap-northeast-3 Asia Pacific (Osaka)
ap-south-1 Asia Pacific (Mumbai)
ap-south-2 Asia Pacific (Hyderabad)
ap-southeast-1 Asia Pacific (Singapore)
ap-southeast-2 Asia Pacific (Sydney)
ap-southeast-3 Asia Pacific (Jakarta)
ap-southeast-4 Asia Pacific (Melbourne)
ap-southeast-5 Asia Pacific (Malaysia)
ap-southeast-6 Asia Pacific (New Zealand)
ap-southeast-7 Asia Pacific (Thailand)
ca-central-1 Canada (Central)
ca-west-1 Canada West (Calgary)
cn-north-1 China (Beijing)
cn-northwest-1 China (Ningxia)
eu-central-1 EU (Frankfurt)
eu-central-2 Europe (Zurich)
eu-north-1 EU (Stockholm)
eu-south-1 EU (Milan)
eu-south-2 Europe (Spain)
eu-west-1 EU (Ireland)
eu-west-2 EU (London)
eu-west-3 EU (Paris)
eusc-de-east-1 EUSC (Germany)
il-central-1 Israel (Tel Aviv)
me-central-1 Middle East (UAE)
me-south-1 Middle East (Bahrain)
mx-central-1 Mexico (Central)
sa-east-1 South America (Sao Paulo)
us-east-1 US East (N. Virginia)
us-east-2 US East (Ohio)
us-gov-east-1 AWS GovCloud (US-East)
us-gov-west-1 AWS GovCloud (US-West)
us-west-1 US West (N. California)
us-west-2 US West (Oregon)
"""

# FOCUS's spelling, and AWS's where it is another.
_UNITS = """
ACU-Hours: ACU-Hr ACU-Hrs ACU-hour
API Calls: API-Calls APICalls
API Requests: API-Requests API-Request
Accounts:
Actions:
Alarms: Alarm
Attachments:
Characters: Character Chars
Checks: Check
Connections: Connection
Count: count
Dashboards: Dashboard
Days: Day
Documents: Document
DPU-Hours: DPU-Hour DPU-Hrs
ECPUs: ElastiCacheProcessingUnits
Emails: Email
Evaluations: Evaluation ConfigRuleEvaluations
Events: Event
Executions: Execution
GB: Gigabyte Gigabytes
GB-Days:
GB-Hours: GB-Hrs GB-Hour GigabyteHrs GB-hour
GB-Months: GB-Mo GB-month GB-Month
GB-Seconds: GB-Second Lambda-GB-Second Lambda-GB-Seconds Lambda-Provisioned-GB-Second
GiBps-Months: GiBps-Mo GiB/Second-Months
Hours: Hrs Hour hours Hourly hour HOURS
Images: Image
Invocations: Invocation
IOPS-Months: IOPS-Mo
IOs: IO
Items: Item
KPU-Hours: KPU-Hour KPU-Hrs
Keys: Key
LCU-Hours: LCU-Hrs LCU-Hr
Lines:
MB: Megabyte
MBPS-Months: MBPS-Mo
MiBps-Months: MiBps-Mo
Messages: Message
Metrics: Metric
Minutes: Minute minutes
Months: Month Mo month
NCU-Hours: NCU-Hr
NLCU-Hours: NLCU-Hrs
OCU-Hours: OCU-Hour OCU-Hrs
Objects: Object
Operations: Operation Ops
Pages: Page
PutRequests: PutRequest
Queries: Query
Quantity: Quantity
RCU-Hours:
RPU-Hours: RPU-Hr RPU-Hrs
ReadCapacityUnit-Hours: ReadCapacityUnit-Hrs ReadCapacityUnit-Hr
ReadRequestUnits: ReadRequestUnit
Recordings:
ReplicatedWriteCapacityUnit-Hours: ReplicatedWriteCapacityUnit-Hrs
ReplicatedWriteRequestUnits:
Requests: Request requests
Rules:
Samples:
Seconds: Second seconds sec
Secrets:
Security Checks: SecurityChecks
Sessions: Session
Shard-Hours: ShardHour shardHour Shard-Hour Shard-Hrs
StateTransitions: StateTransition StateTransitionsCount
TB: Terabyte
TB-Months: TB-Mo
Tags: Tag
Tokens: Token
1000 Tokens: 1K-tokens 1K-Tokens
1000000 Tokens: 1M-tokens 1M-Tokens
Transactions: Transaction
Traces: Trace
Units: Unit units
Updates:
User-Months: User-Mo UserMonth User-Month
Users: User
vCPU-Hours: vCPU-Hrs vCPU-hour vCPU-Hour
vCPU-Months: vCPU-Mo
VPU-Hours:
WriteCapacityUnit-Hours: WriteCapacityUnit-Hrs WriteCapacityUnit-Hr
WriteRequestUnits: WriteRequestUnit
Years: Year
"""

# `service:type` is of an ARN, where the type is what stands before the resource's own name; `i-` is
# of an id; a word alone is a product code.
_RESOURCE_TYPES = """
Access Point: s3:accesspoint elasticfilesystem:access-point
Alarm: cloudwatch:alarm
API: apigateway:restapis apigateway:apis execute-api: appsync:apis
Application Load Balancer: elasticloadbalancing:loadbalancer
Backup: dynamodb:backup backup:recovery-point fsx:backup
Backup Vault: backup:backup-vault
Bucket: s3: AmazonS3
Cache Cluster: elasticache:cluster elasticache:replicationgroup memorydb:cluster
Serverless Cache: elasticache:serverlesscache
Capacity Reservation: ec2:capacity-reservation cr-
Certificate: acm:certificate acm-pca:certificate-authority
Cluster: eks:cluster ecs:cluster kafka:cluster redshift:cluster elasticmapreduce:cluster dax:cache
Container: ecs:container
Crawler: glue:crawler
Dashboard: cloudwatch:dashboard
Database Cluster: rds:cluster
Database Instance: rds:db
Database Snapshot: rds:snapshot rds:cluster-snapshot
Delivery Stream: firehose:deliverystream
Directory: ds:directory d-
Distribution: cloudfront:distribution
Domain: es:domain route53domains:domain
Elastic IP: ec2:elastic-ip eipalloc-
Endpoint: sagemaker:endpoint ec2:vpc-endpoint vpce-
Event Bus: events:event-bus
File System: elasticfilesystem:file-system fsx:file-system fs-
Firewall: network-firewall:firewall
Function: lambda:function
Hosted Zone: route53:hostedzone
Image: ec2:image ami-
Instance: ec2:instance i-
Job: glue:job batch:job
Key: kms:key
Log Group: logs:log-group
Model: bedrock:foundation-model bedrock:inference-profile bedrock:application-inference-profile
NAT Gateway: ec2:natgateway nat-
Network Interface: ec2:network-interface eni-
Node Group: eks:nodegroup
Notebook: sagemaker:notebook-instance
Parameter: ssm:parameter
Pod: eks:pod
Queue: sqs:
Repository: ecr:repository codecommit:
Reserved Instance: ec2:reserved-instances rds:ri elasticache:reserved-instance
Rule: events:rule
Savings Plan: savingsplans:savingsplan
Secret: secretsmanager:secret
Snapshot: ec2:snapshot snap-
State Machine: states:stateMachine states:execution
Stream: kinesis:stream kinesisvideo:stream
Table: dynamodb:table cassandra:
Target Group: elasticloadbalancing:targetgroup
Task: ecs:task
Topic: sns:
Trail: cloudtrail:trail
Transit Gateway: ec2:transit-gateway tgw-
Transit Gateway Attachment: ec2:transit-gateway-attachment tgw-attach-
User Pool: cognito-idp:userpool
VPC: ec2:vpc vpc-
VPN Connection: ec2:vpn-connection vpn-
Volume: ec2:volume vol-
Web ACL: wafv2:regional wafv2:global
Workgroup: athena:workgroup
Workspace: workspaces:workspace ws- aps:workspace
"""


def _services() -> Iterator[tuple[str, ...]]:
    """Yield each product code with its name, category and subcategory."""
    category = subcategory = ""
    for line in _SERVICES.strip().splitlines():
        if line.startswith("["):
            category, subcategory = line.strip("[]").split(" / ")
            continue
        name, _, codes = line.rpartition(":")
        yield from ((code, name, category, subcategory) for code in codes.split())


def _keys(text: str) -> Iterator[tuple[str, str]]:
    """Yield each key of the lines `value: key key`, with its value."""
    for line in text.strip().splitlines():
        value, _, keys = line.partition(": ")
        yield from ((key, value.removesuffix(":")) for key in keys.split())


def _units() -> Iterator[tuple[str, str]]:
    names = {line.partition(":")[0] for line in _UNITS.strip().splitlines()}
    yield from {(name.lower(), name) for name in names}
    yield from {(key.lower(), unit) for key, unit in _keys(_UNITS)}


def _write(name: str, header: str, rows: Iterable[tuple[str, ...]]) -> None:
    with (_FOLDER / f"aws_{name}.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header.split())
        writer.writerows(sorted(set(rows)))


def main() -> None:
    """Write the CSV files of these lookup tables beside this file."""
    _write("services", "code name", ((code, name) for code, name, *_ in _services()))
    _write("categories", "name category subcategory", (row[1:] for row in _services()))
    _write("regions", "id name", (tuple(r.split(" ", 1)) for r in _REGIONS.strip().splitlines()))
    _write("units", "key name", _units())
    _write("resource_types", "key type", _keys(_RESOURCE_TYPES))


if __name__ == "__main__":
    main()
