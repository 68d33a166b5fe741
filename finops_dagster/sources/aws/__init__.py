"""AWS cost exports: CUR v1, CUR 2.0 and FOCUS, by their manifests in S3."""
