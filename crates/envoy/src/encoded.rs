//! Stage `encoded`: every chain as bytes, so that an edit of one service encodes one chain
//! and the listener around it is concatenation.

use flow::{Output, Reads, View};
use model::{Finding, ProxyClass};

use crate::emit;
use crate::index::ClassByGateway;
use crate::ir::{ChainIr, EncodedChain, WaypointResource};

/// Primary: a chain.
pub type P = WaypointResource;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct EncodedView<'t> {
    /// Chains.
    pub chains: View<'t, WaypointResource, ChainIr>,
    /// Classes of connected proxies; index [`ClassByGateway`].
    pub proxies: View<'t, ProxyClass, ()>,
}

/// The chain of the same key, encoded for the proxies that are there.
pub fn derive(
    p: &P,
    view: &EncodedView<'_>,
    reads: &mut Reads,
) -> Output<WaypointResource, EncodedChain, Finding> {
    let Some(chain) = view.chains.get(reads, p) else {
        return Output::gone();
    };
    let istio = view
        .proxies
        .by::<ClassByGateway>(reads, &p.waypoint)
        .any(|(class, _)| class.istio);
    let row = EncodedChain {
        bytes: emit::chain(chain).into(),
        istio: istio.then(|| emit::istio_chain(chain).into()),
    };
    Output::one(p.clone(), row)
}
