"""Azure Cost Management exports: FOCUS, actual and amortized costs, by their manifests."""
