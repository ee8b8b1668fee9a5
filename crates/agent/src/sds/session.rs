//! One state-of-the-world stream of one secret, without I/O.

use proto::Any;
use proto::discovery::{DiscoveryRequest, DiscoveryResponse};
use proto::type_url::SECRET;
use tonic::Status;

use crate::state::{CERTIFICATE, ROOTS};

/// Longest reason of a refusal that is logged, characters.
const REASON_CHARS_MAX: usize = 500;

/// What a stream asked for and what it was sent.
#[derive(Default)]
pub(super) struct Session {
    name: String,
    sent: Option<Vec<u8>>,
    /// Counts responses: version and nonce of the latest.
    version: u64,
}

impl Session {
    /// The resource that the stream asks for; empty until it has.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Takes a request: a subscription, an ACK, or a NACK, whose reason is returned.
    pub(super) fn on_request(
        &mut self,
        request: &DiscoveryRequest,
    ) -> Result<Option<String>, Status> {
        if !request.type_url.is_empty() && request.type_url != SECRET {
            return Err(Status::invalid_argument("only secrets are served here"));
        }
        let [name] = request.resource_names.as_slice() else {
            return Err(Status::invalid_argument(
                "a request names exactly one secret",
            ));
        };
        if ![CERTIFICATE, ROOTS].contains(&name.as_str()) {
            let name: String = name.chars().take(100).collect();
            return Err(Status::not_found(format!("there is no secret {name:?}")));
        }
        if self.name != *name {
            self.name.clone_from(name);
            self.sent = None;
        }
        let is_latest = request.response_nonce == self.version.to_string();
        Ok(request
            .error_detail
            .as_ref()
            .filter(|_| is_latest)
            .map(|error| error.message.chars().take(REASON_CHARS_MAX).collect()))
    }

    /// The response for the secret as it is now, unless it was sent already: what Envoy
    /// refused once it is not offered again.
    pub(super) fn on_secret(&mut self, resource: Option<Vec<u8>>) -> Option<DiscoveryResponse> {
        let resource = resource?;
        if self.sent.as_ref() == Some(&resource) {
            return None;
        }
        self.version += 1;
        self.sent = Some(resource.clone());
        Some(DiscoveryResponse {
            version_info: self.version.to_string(),
            nonce: self.version.to_string(),
            type_url: SECRET.to_owned(),
            resources: vec![Any {
                type_url: SECRET.to_owned(),
                value: resource,
            }],
            ..DiscoveryResponse::default()
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proto::discovery;

    use super::*;

    fn request(names: &[&str], nonce: &str, error: Option<&str>) -> DiscoveryRequest {
        DiscoveryRequest {
            type_url: SECRET.to_owned(),
            resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
            response_nonce: nonce.to_owned(),
            error_detail: error.map(|message| discovery::Status {
                message: message.to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_secret_is_sent_once_and_again_when_it_changes() {
        let mut session = Session::default();
        session
            .on_request(&request(&["default"], "", None))
            .unwrap();
        assert_eq!(session.on_secret(None), None, "Envoy waits for the first");
        let first = session.on_secret(Some(vec![1])).unwrap();
        assert_eq!(
            (first.version_info.as_str(), first.nonce.as_str()),
            ("1", "1")
        );
        let acked = session
            .on_request(&request(&["default"], "1", None))
            .unwrap();
        assert_eq!(acked, None);
        assert_eq!(session.on_secret(Some(vec![1])), None);
        let second = session.on_secret(Some(vec![2])).unwrap();
        assert_eq!(second.nonce, "2");
        assert_eq!(
            second.resources,
            [Any {
                type_url: SECRET.to_owned(),
                value: vec![2]
            }]
        );
    }

    #[test]
    fn a_refused_secret_is_reported_and_not_sent_again() {
        let mut session = Session::default();
        session.on_request(&request(&["ROOTCA"], "", None)).unwrap();
        session.on_secret(Some(vec![1])).unwrap();
        let stale = session
            .on_request(&request(&["ROOTCA"], "0", Some("old")))
            .unwrap();
        assert_eq!(stale, None);
        let reason = session
            .on_request(&request(&["ROOTCA"], "1", Some("bad PEM")))
            .unwrap();
        assert_eq!(reason.as_deref(), Some("bad PEM"));
        assert_eq!(session.on_secret(Some(vec![1])), None);
        assert!(session.on_secret(Some(vec![2])).is_some());
    }

    #[test]
    fn other_types_other_names_and_several_names_end_the_stream() {
        let other_type = DiscoveryRequest {
            type_url: proto::type_url::CLUSTER.to_owned(),
            ..request(&["default"], "", None)
        };
        let cases = [
            (other_type, tonic::Code::InvalidArgument),
            (request(&[], "", None), tonic::Code::InvalidArgument),
            (
                request(&["default", "ROOTCA"], "", None),
                tonic::Code::InvalidArgument,
            ),
            (
                request(&["file-cert:/etc/shadow~x"], "", None),
                tonic::Code::NotFound,
            ),
        ];
        for (request, code) in cases {
            let outcome = Session::default().on_request(&request);
            assert_eq!(outcome.unwrap_err().code(), code, "{request:?}");
        }
    }
}
