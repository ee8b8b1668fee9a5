//! Development certificate authority: root, serving and workload certificates.
