"""The edge: Envoy's configuration, the OpenAPI document and its reference page, all made from the protos."""
