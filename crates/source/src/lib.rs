//! Sources of Kubernetes objects: a watched directory of YAML.
