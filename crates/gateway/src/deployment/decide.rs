//! Whether a Gateway's deployment is ours to make. Source: spec/gateway-api.md §2.1.

use model::gateway::GatewayController;

pub use model::deployment::{ANNOTATION_CONTROLLER_VERSION, CONTROLLER_VERSION};

/// What the decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The controller of the class; `None` when that is not ours.
    pub controller: Option<GatewayController>,
    /// The revision that the Gateway asks for is ours.
    pub is_our_revision: bool,
    /// Its addresses leave the deployment to a controller.
    pub is_managed: bool,
    /// Value of [`ANNOTATION_CONTROLLER_VERSION`] on the Gateway.
    pub version: Option<&'a str>,
}

/// What to do about the deployment of a Gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing.
    Leave(Why),
    /// Make it. With `claim`, write [`CONTROLLER_VERSION`] onto the Gateway first, through
    /// `gateways/status`.
    Make {
        /// The Gateway does not say yet that it is ours.
        claim: bool,
    },
}

/// Why nothing is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The class is somebody else's.
    ForeignClass,
    /// Another revision's.
    OtherRevision,
    /// Gateways of the class run elsewhere.
    NoTemplate,
    /// The Gateway names its own Services.
    Manual,
    /// [`ANNOTATION_CONTROLLER_VERSION`] is no number.
    UnreadableVersion,
    /// A newer controller made it.
    NewerController,
}

/// Decides; the first reason to leave it counts.
pub fn decide(question: Question<'_>) -> Decision {
    use Decision::{Leave, Make};
    let Some(controller) = question.controller else {
        return Leave(Why::ForeignClass);
    };
    if !question.is_our_revision {
        return Leave(Why::OtherRevision);
    }
    if controller.managed_label().is_none() {
        return Leave(Why::NoTemplate);
    }
    if !question.is_managed {
        return Leave(Why::Manual);
    }
    match question.version.map(str::parse::<i64>) {
        None => Make { claim: true },
        Some(Err(_)) => Leave(Why::UnreadableVersion),
        Some(Ok(version)) if version > CONTROLLER_VERSION => Leave(Why::NewerController),
        Some(Ok(version)) => Make {
            claim: version < CONTROLLER_VERSION,
        },
    }
}
