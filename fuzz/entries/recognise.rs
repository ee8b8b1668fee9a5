//! Any JSON value is recognised without panic, and an invalid body is always told: by a note,
//! or by a stage when it is that of a policy.

use model::Kind;
use model::parse::{Recognised, recognise};

pub fn run(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(bytes) else {
        return;
    };
    if let Recognised::Object(object) = recognise(&value, "fuzz.json") {
        let told = object
            .notes()
            .iter()
            .any(|note| note.code == "invalid-object");
        let policy = matches!(
            object.kind(),
            Kind::AuthorizationPolicy | Kind::PeerAuthentication
        );
        assert_eq!(object.invalid().is_some() && !policy, told);
    }
}
