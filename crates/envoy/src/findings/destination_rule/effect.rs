//! What of a rule has another effect than it says.

use flow::Reads;
use model::derived::{AppProtocol, PortRow};
use model::input::{Balancer, ClientTls, TlsMode, TrafficPolicy};
use model::secret::{CA_SUFFIX, MaterialKey};
use model::{ObjectKey, ServiceRow, Severity, Str};

use super::{Place, Report};
use crate::traffic::cluster::takes_warmup;
use crate::traffic::tls::{may_use_files, secret_name, uses_files};

impl Report<'_, '_> {
    /// What can be told from the rule alone.
    pub(super) fn written(&mut self) {
        for (at, policy) in self.policies() {
            self.dropped_by_ports(&at, policy);
        }
        for place in self.places() {
            self.locality(&place);
            self.warmup(&place);
            if let Some(tls) = &place.policy.tls {
                self.tls(&place, tls);
            }
        }
    }

    /// Settings of a port inherit nothing.
    fn dropped_by_ports(&mut self, at: &str, policy: &TrafficPolicy) {
        let base = &policy.base;
        for (port, of_port) in &policy.ports {
            let blocks = [
                (
                    "loadBalancer",
                    base.balancer.is_some(),
                    of_port.balancer.is_some(),
                ),
                (
                    "connectionPool",
                    base.pool.is_some(),
                    of_port.pool.is_some(),
                ),
                (
                    "outlierDetection",
                    base.outlier.is_some(),
                    of_port.outlier.is_some(),
                ),
                ("tls", base.tls.is_some(), of_port.tls.is_some()),
                ("tunnel", policy.tunnel.is_some(), false),
                ("proxyProtocol", policy.proxy_protocol.is_some(), false),
                ("retryBudget", policy.retry_budget.is_some(), false),
            ];
            let lost = blocks.iter().filter(|(_, above, here)| *above && !here);
            let lost: Vec<&str> = lost.map(|(name, ..)| *name).collect();
            if lost.is_empty() {
                continue;
            }
            // Without TLS that is asked for elsewhere, connections are plain text.
            let severity = if lost.contains(&"tls") {
                Severity::Error
            } else {
                Severity::Warning
            };
            let lost = lost.join(", ");
            let what = format!(
                "Settings of port {port} inherit nothing: {lost} of the policy above do not hold there"
            );
            let fix = arcstr::format!("Repeat {lost} for port {port}");
            let at = format!("{at}.portLevelSettings");
            self.push("dr-portlevel-drops", severity, &at, what, fix);
        }
    }

    fn locality(&mut self, place: &Place<'_>) {
        let Some(balancer) = &place.policy.balancer else {
            return;
        };
        if balancer.zone_aware {
            let at = format!("{}.loadBalancer.zoneAwareLbSetting", place.at);
            let what = "Waypoints do not route by zones in this way: what is nearest to the waypoint is preferred instead".to_owned();
            let fix = "Use localityLbSetting";
            self.push("dr-zoneaware-waypoint", Severity::Warning, &at, what, fix);
        }
        let Some(locality) = &balancer.locality else {
            return;
        };
        let fails_over = !locality.failover.is_empty() || !locality.failover_priority.is_empty();
        if fails_over && place.policy.outlier.is_none() && locality.enabled != Some(false) {
            let at = format!("{}.loadBalancer.localityLbSetting", place.at);
            let what = "Without outlierDetection beside it nothing fails over: endpoints of all localities are alike".to_owned();
            let fix = "Add outlierDetection to the same policy";
            self.push("dr-locality-no-outlier", Severity::Warning, &at, what, fix);
        }
    }

    fn warmup(&mut self, place: &Place<'_>) {
        let Some(balancer) = &place.policy.balancer else {
            return;
        };
        if balancer.warmup.is_some() && !takes_warmup(balancer) {
            let at = format!("{}.loadBalancer.warmup", place.at);
            let what = "Only ROUND_ROBIN and LEAST_REQUEST warm endpoints up: this has no effect"
                .to_owned();
            let fix = "Change the load balancer, or remove warmup";
            self.push("dr-warmup-policy", Severity::Warning, &at, what, fix);
        }
    }

    fn tls(&mut self, place: &Place<'_>, tls: &ClientTls) {
        let at = format!("{}.tls", place.at);
        if !matches!(tls.mode, TlsMode::Simple | TlsMode::Mutual) {
            return;
        }
        let has_files = !tls.client_certificate.is_empty() && !tls.private_key.is_empty();
        if tls.mode == TlsMode::Mutual && !has_files && secret_name(tls).is_none() {
            let what = format!(
                "MUTUAL without a certificate of the client: connections to {} are refused",
                self.host
            );
            let fix = "Give it credentialName, or clientCertificate and privateKey";
            self.push("dr-mutual-missing-cert", Severity::Error, &at, what, fix);
        }
        let has_authority = !tls.ca_certificates.is_empty() || !tls.credential_name.is_empty();
        if !has_authority && tls.subject_alt_names.is_empty() && !tls.insecure_skip_verify {
            let what = "The server is whoever the authorities of the proxy's system vouch for under the name that is asked for".to_owned();
            let fix = "Set caCertificates or credentialName, and subjectAltNames";
            self.push("dr-no-ca", Severity::Info, &at, what, fix);
        }
    }

    /// What depends on the service behind a waypoint that applies the rule.
    pub(super) fn effects(
        &mut self,
        reads: &mut Reads,
        service: &ServiceRow,
        waypoint: &ObjectKey,
    ) {
        for place in self.places() {
            if let Some(tls) = &place.policy.tls {
                self.mode(&place, tls, service, waypoint);
                self.files(&place, tls, waypoint);
                self.credential(reads, &place, tls, waypoint);
            }
            let outlier = place.policy.outlier.as_ref();
            if outlier.is_some_and(|outlier| !outlier.error_codes.is_empty()) {
                let at = format!(
                    "{}.outlierDetection.outlierDetectionHttpErrorCodes",
                    place.at
                );
                let what =
                    format!("Waypoint {waypoint} counts statuses from 500 on as errors, not these");
                let fix = "Use consecutive5xxErrors";
                self.push("dr-error-codes-waypoint", Severity::Warning, &at, what, fix);
            }
            self.http2_options(&place, service);
        }
        self.hash(reads, service, waypoint);
    }

    fn mode(
        &mut self,
        place: &Place<'_>,
        tls: &ClientTls,
        service: &ServiceRow,
        waypoint: &ObjectKey,
    ) {
        let at = format!("{}.tls", place.at);
        let word = match tls.mode {
            TlsMode::Disable => "DISABLE",
            TlsMode::IstioMutual => "ISTIO_MUTUAL",
            TlsMode::Refuse => return,
            TlsMode::Simple | TlsMode::Mutual => {
                let wrapped = |port: &&PortRow| {
                    matches!(port.protocol, AppProtocol::Https | AppProtocol::Tls)
                        && place.port.is_none_or(|number| number == port.port)
                };
                if let Some(port) = service.ports.iter().find(wrapped) {
                    let what = format!(
                        "Port {} carries TLS of the clients already, and waypoint {waypoint} wraps it into TLS once more; what clients send in plain text alone arrives as meant",
                        port.port
                    );
                    let fix = "Declare the port as HTTP with targetPort, or remove tls";
                    self.push("dr-double-tls", Severity::Warning, &at, what, fix);
                }
                return;
            }
        };
        let what = format!(
            "tls.mode {word} has no meaning behind waypoint {waypoint}: endpoints of the mesh are reached through HBONE, others in plain text"
        );
        let fix = "Remove tls";
        self.push("dr-mtls-mode-waypoint", Severity::Warning, &at, what, fix);
    }

    /// Paths of a waypoint's files that the rule must not name.
    fn files(&mut self, place: &Place<'_>, tls: &ClientTls, waypoint: &ObjectKey) {
        if !uses_files(tls) || may_use_files(&self.key.ns, waypoint, self.mesh) {
            return;
        }
        let what = format!(
            "Files of waypoint {waypoint} are for rules of its own namespace and of {}: connections that it opens to {} are refused",
            self.mesh.root_namespace, self.host
        );
        self.not_permitted(place, Severity::Error, what);
    }

    /// The same where it is not known which waypoints apply the rule.
    pub(super) fn files_elsewhere(&mut self) {
        if self.key.ns == self.mesh.root_namespace {
            return;
        }
        for place in self.places() {
            if place.policy.tls.as_ref().is_some_and(uses_files) {
                let what = format!(
                    "Files of a waypoint are for rules of its own namespace: connections to {} that waypoints of other namespaces than {} open are refused",
                    self.host, self.key.ns
                );
                self.not_permitted(&place, Severity::Warning, what);
            }
        }
    }

    fn not_permitted(&mut self, place: &Place<'_>, severity: Severity, what: String) {
        let at = format!("{}.tls", place.at);
        let fix = "Use credentialName, or move the rule to the namespace of the waypoint";
        self.push("dr-tls-file-not-permitted", severity, &at, what, fix);
    }

    /// Secrets come from the namespace of the waypoint.
    fn credential(
        &mut self,
        reads: &mut Reads,
        place: &Place<'_>,
        tls: &ClientTls,
        waypoint: &ObjectKey,
    ) {
        if !matches!(tls.mode, TlsMode::Simple | TlsMode::Mutual) {
            return;
        }
        let reason = if let Some(name) = secret_name(tls) {
            self.secret_defect(reads, tls, &waypoint.ns, name)
        } else if let Some(name) = config_map_name(&tls.credential_name) {
            let key = ObjectKey::new(self.key.ns.clone(), name);
            let found = self.view.materials.get(reads, &MaterialKey::ConfigMap(key));
            match found {
                None => Some("does not exist"),
                Some(found) => found
                    .authority
                    .is_none()
                    .then_some("has no authorities that could be read"),
            }
        } else {
            None
        };
        let Some(reason) = reason else { return };
        let what = format!(
            "{} {reason} in namespace {}, so connections that waypoint {waypoint} opens to {} fail",
            tls.credential_name, waypoint.ns, self.host
        );
        let fix = arcstr::format!("Create it in namespace {}", waypoint.ns);
        let at = format!("{}.tls.credentialName", place.at);
        self.push("dr-credential-missing", Severity::Error, &at, what, fix);
    }

    fn secret_defect(
        &self,
        reads: &mut Reads,
        tls: &ClientTls,
        ns: &Str,
        name: &str,
    ) -> Option<&'static str> {
        let mut get = |name: &str| {
            let key = ObjectKey::new(ns.clone(), name);
            self.view.materials.get(reads, &MaterialKey::Secret(key))
        };
        let own = get(name);
        if tls.mode == TlsMode::Mutual {
            match own {
                None => return Some("does not exist"),
                Some(own) if own.certificate.is_none() => {
                    return Some("has no certificate and key that could be read");
                }
                Some(_) => {}
            }
        }
        if tls.insecure_skip_verify {
            return None;
        }
        let beside = get(&format!("{name}{CA_SUFFIX}"));
        match beside.or(own) {
            None => Some("does not exist"),
            Some(found) if found.authority.is_none() => {
                Some("has no authorities that could be read")
            }
            Some(_) => None,
        }
    }

    fn http2_options(&mut self, place: &Place<'_>, service: &ServiceRow) {
        let Some(pool) = &place.policy.pool else {
            return;
        };
        let given = [
            (
                "maxConcurrentStreams",
                pool.max_concurrent_streams.is_some(),
            ),
            ("http2KeepAlive", pool.h2_keepalive.is_some()),
        ];
        let concerned = |port: &&PortRow| {
            place.port.is_none_or(|number| number == port.port)
                && (port.protocol.is_http() || port.protocol == AppProtocol::Unknown)
        };
        let plain = |port: &&PortRow| concerned(port) && !port.protocol.is_http2();
        let Some(port) = service.ports.iter().find(plain) else {
            return;
        };
        for (name, _) in given.iter().filter(|(_, given)| *given) {
            let at = format!("{}.connectionPool.http.{name}", place.at);
            let what = format!(
                "Port {} is not HTTP2 or GRPC, so {name} has no effect there",
                port.port
            );
            let fix = "Set appProtocol of the port";
            self.push("dr-h2-ignored", Severity::Warning, &at, what, fix);
        }
    }

    /// A hash without key on the default route: it reads the policy for all ports alone.
    fn hash(&mut self, reads: &mut Reads, service: &ServiceRow, waypoint: &ObjectKey) {
        let hashes = |place: &Place<'_>| {
            let balancer = place.policy.balancer.as_ref();
            balancer.is_some_and(|balancer| matches!(balancer.balancer, Balancer::Hash(_)))
        };
        let places = self.places();
        let top = |place: &Place<'_>| place.port.is_none() && place.at == "spec.trafficPolicy";
        if places.iter().any(|place| top(place) && hashes(place)) {
            return;
        }
        // What subsets say is read where routes lead to them.
        let of_port = places
            .iter()
            .find(|place| place.at == "spec.trafficPolicy.portLevelSettings" && hashes(place));
        let Some(place) = of_port else { return };
        if self.has_routes(reads, service, waypoint) {
            return;
        }
        let at = format!("{}.loadBalancer.consistentHash", place.at);
        let what = "Requests without a route of their own are hashed by the policy for all ports, which has no key: their endpoint is random".to_owned();
        let fix = "Move consistentHash to the policy for all ports";
        self.push("dr-hash-default-route", Severity::Warning, &at, what, fix);
    }
}

fn config_map_name(name: &str) -> Option<&str> {
    let (_, name) = name.strip_prefix("configmap://")?.split_once('/')?;
    Some(name)
}
