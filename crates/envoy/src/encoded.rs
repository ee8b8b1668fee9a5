//! Stage `encoded`: every chain as bytes, so that an edit of one service encodes one chain
//! and the listener around it is concatenation.

use flow::{Output, Reads, View};
use model::Finding;

use crate::emit;
use crate::ir::{ChainIr, EncodedChain, WaypointResource};

/// Primary: a chain.
pub type P = WaypointResource;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct EncodedView<'t> {
    /// Chains.
    pub chains: View<'t, WaypointResource, ChainIr>,
}

/// The chain of the same key, encoded.
pub fn derive(
    p: &P,
    view: &EncodedView<'_>,
    reads: &mut Reads,
) -> Output<WaypointResource, EncodedChain, Finding> {
    match view.chains.get(reads, p) {
        Some(chain) => Output::one(
            p.clone(),
            EncodedChain {
                bytes: emit::chain(chain).into(),
            },
        ),
        None => Output::gone(),
    }
}
