"""Make the lookup tables of Azure's actual and amortized costs.

    python -m finops_dagster.focus.lookups.make_azure_usage FINOPS_TOOLKIT

They are of the same open data as the tables of `make_azure.py`, except for the meter categories.

azure_services.csv           resource type, and the consumed service where it decides, else "any"
                             -> ServiceName, ServiceCategory, ServiceSubcategory
azure_meter_categories.csv   meter category -> the same: `_METER_CATEGORIES` below, our own
azure_consumed_services.csv  consumed service -> the same
azure_units.csv              unit of measure -> units in a block, ConsumedUnit, PricingUnit

All keys are in lower case.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from finops_dagster.focus.lookups.make_azure import _read, _services, _write

Service = tuple[str, str, str]
_SERVICE = "service category subcategory"

# Resource types of several services, and consumed services, with the service of most charges.
_USUAL = {
    "citrix.services": "Citrix Virtual App Essentials",
    "microsoft.compute": "Virtual Machines",
    "microsoft.containerservice": "Azure Kubernetes Service",
    "microsoft.eventgrid": "Event Grid",
    "microsoft.graph": "Microsoft Graph",
    "microsoft.mixedreality": "Remote Rendering",
    "microsoft.network": "Virtual Network",
    "microsoft.security": "Microsoft Defender for Cloud",
    "microsoft.security/pricings": "Microsoft Defender for Cloud",
    "microsoft.web": "Azure App Service",
    "microsoft.web/sites": "Azure App Service",
    "virtual network": "Virtual Network",
}
_METER_CATEGORIES = {
    "advanced data security": "Microsoft Defender for Cloud",
    "advanced threat protection": "Microsoft Defender for Cloud",
    "api management": "API Management",
    "app configuration": "App Configuration",
    "application gateway": "Application Gateway",
    "application insights": "Azure Monitor",
    "automation": "Azure Automation",
    "azure ai search": "Azure AI Search",
    "azure ai services": "Azure AI Services",
    "azure analysis services": "Azure Analysis Services",
    "azure app service": "Azure App Service",
    "azure bastion": "Azure Bastion",
    "azure bot service": "Azure AI Bot Service",
    "azure cognitive search": "Azure AI Search",
    "azure container apps": "Azure Container Apps",
    "azure cosmos db": "Cosmos DB",
    "azure data explorer": "Azure Data Explorer",
    "azure data factory": "Azure Data Factory",
    "azure data factory v2": "Azure Data Factory",
    "azure database for mariadb": "Azure DB for MariaDB",
    "azure database for mysql": "Azure DB for MySQL",
    "azure database for postgresql": "Azure DB for PostgreSQL",
    "azure databricks": "Azure Databricks",
    "azure ddos protection": "Azure DDoS Protection",
    "azure devops": "Azure DevOps",
    "azure dns": "Azure DNS",
    "azure firewall": "Azure Firewall",
    "azure firewall manager": "Azure Firewall Manager",
    "azure front door service": "Azure Front Door",
    "azure grafana service": "Azure Managed Grafana",
    "azure kubernetes service": "Azure Kubernetes Service",
    "azure lab services": "Azure Lab Services",
    "azure machine learning": "Azure Machine Learning",
    "azure maps": "Azure Maps",
    "azure migrate": "Azure Migrate",
    "azure monitor": "Azure Monitor",
    "azure netapp files": "Azure NetApp Files",
    "azure purview": "Microsoft Purview",
    "azure site recovery": "Azure Site Recovery",
    "azure spring cloud": "Azure Spring Apps",
    "azure stack edge": "Azure Stack Edge",
    "azure stack hci": "Azure Stack HCI",
    "azure synapse analytics": "Azure Synapse Analytics",
    "azure vmware solution": "Azure VMware Solution",
    "backup": "Azure Backup",
    "bandwidth": "Virtual Network",
    "batch": "Batch",
    "cloud services": "Cloud Services",
    "cognitive services": "Azure AI Services",
    "container instances": "Azure Container Instances",
    "container registry": "Azure Container Registry",
    "content delivery network": "Content Delivery Network",
    "data box": "Azure Data Box",
    "digital twins": "Azure Digital Twins",
    "event grid": "Event Grid",
    "event hubs": "Event Hubs",
    "expressroute": "Azure ExpressRoute",
    "foundry models": "Azure AI Services",
    "functions": "Functions",
    "hdinsight": "HDInsight",
    "insight and analytics": "Azure Monitor",
    "iot central": "Azure IoT Central",
    "iot hub": "Azure IoT Hub",
    "key vault": "Key Vault",
    "load balancer": "Load Balancer",
    "log analytics": "Azure Monitor",
    "logic apps": "Logic Apps",
    "media services": "Azure Media Services",
    "microsoft defender for cloud": "Microsoft Defender for Cloud",
    "microsoft dev box": "Microsoft Dev Box",
    "microsoft fabric": "Microsoft.Fabric",
    "nat gateway": "Azure NAT Gateway",
    "network watcher": "Network Watcher",
    "notification hubs": "Notification Hubs",
    "power bi embedded": "Power BI Embedded",
    "redis cache": "Azure Cache for Redis",
    "security center": "Microsoft Defender for Cloud",
    "service bus": "Service Bus",
    "signalr": "Azure SignalR Service",
    "sql data warehouse": "Azure Synapse Analytics",
    "sql database": "Azure SQL Database",
    "sql managed instance": "Azure SQL Database",
    "storage": "Storage Accounts",
    "stream analytics": "Azure Stream Analytics",
    "traffic manager": "Traffic Manager",
    "virtual machines": "Virtual Machines",
    "virtual machines licenses": "Virtual Machines",
    "virtual network": "Virtual Network",
    "virtual wan": "Virtual WAN",
    "vpn gateway": "VPN Gateway",
}


def _by_type(toolkit: Path, named: dict[str, Service]) -> Iterator[tuple[str, ...]]:
    """Yield the services of resource types, once more for each consumed service that decides."""
    services: dict[str, dict[str, str]] = defaultdict(dict)
    for row in _read(toolkit, "Services"):
        services[row["ResourceType"].lower()][row["ConsumedService"].lower()] = row["ServiceName"]
    for resource_type, by_consumed in services.items():
        names = set(by_consumed.values())
        usual = _USUAL[resource_type] if len(names) > 1 else names.pop()
        yield resource_type, "any", *named[usual]
        for consumed, name in by_consumed.items():
            if name != usual:
                yield resource_type, consumed, *named[name]


def _by_consumed_service(toolkit: Path, named: dict[str, Service]) -> Iterator[tuple[str, ...]]:
    services = defaultdict(set)
    for row in _read(toolkit, "Services"):
        services[row["ConsumedService"].lower()].add(row["ServiceName"])
    for consumed, names in services.items():
        if consumed:
            usual = _USUAL[consumed] if len(names) > 1 else names.pop()
            yield consumed, *named[usual]


def _units(toolkit: Path) -> Iterator[tuple[str, str, str, str]]:
    """Yield the units.

    FOCUS has a number before words alone: `100 GB per Month`, not `100 GB/Month`. It spells one of
    Microsoft's units otherwise, "MB/month".
    """
    for row in _read(toolkit, "PricingUnits"):
        block, unit = row["PricingBlockSize"], row["DistinctUnits"].replace("/month", "/Month")
        priced = unit if block == "1" else f"{block} {unit.replace('/', ' per ')}"
        yield row["UnitOfMeasure"].strip().lower(), block, unit, priced


def main(toolkit: Path) -> None:
    """Write the CSV files of these lookup tables beside this file, from a clone of the toolkit."""
    named = {service[0]: service for service in _services(toolkit)}
    _write("azure_services", f"resource_type consumed {_SERVICE}", _by_type(toolkit, named))
    _write("azure_consumed_services", f"consumed {_SERVICE}", _by_consumed_service(toolkit, named))
    _write(
        "azure_meter_categories",
        f"meter_category {_SERVICE}",
        ((category, *named[name]) for category, name in _METER_CATEGORIES.items()),
    )
    _write("azure_units", "measure block unit priced_unit", _units(toolkit))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
