//! Stage `network_gateway`: a Gateway that somebody else runs → [`NetworkGatewayRow`].
//!
//! It says by which addresses another network is reached. Source: spec/workload-discovery.md §4.5.

use flow::{Output, Reads, View};
use model::derived::{GatewayAddress, NetworkGateway};
use model::gateway::{ANNOTATION_SERVICE_ACCOUNT, GatewayController};
use model::input::{Gateway, GatewayClass, GatewayStatusAddress};
use model::labels::LABEL_NETWORK;
use model::{Finding, Kind, NamespacedHostname, ObjectKey, ObjectRef, Parsed, Str};

use crate::keys;
use crate::tables::{InputView, warning};

/// The gateways of another network that one Gateway describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkGatewayRow {
    /// The Gateway.
    pub key: ObjectKey,
    /// The network behind it, never empty.
    pub network: Str,
    /// Service account that it proves to be.
    pub service_account: Str,
    /// One per address, in the order of the status; never empty.
    pub gateways: Vec<NetworkGateway>,
}

/// The tracked view of network gateways.
pub type NetworkGatewayTable<'t> = View<'t, ObjectKey, NetworkGatewayRow>;

/// Index of network gateways by network.
#[derive(Clone, Copy, Debug)]
pub struct GatewaysByNetwork;

impl flow::Index<ObjectKey, NetworkGatewayRow> for GatewaysByNetwork {
    type At = Str;

    fn keys(_: &ObjectKey, row: &NetworkGatewayRow, emit: &mut dyn FnMut(&Str)) {
        emit(&row.network);
    }
}

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct NetworkGatewayView<'t> {
    /// Gateways.
    pub gateways: InputView<'t, Gateway>,
    /// GatewayClasses.
    pub gateway_classes: InputView<'t, GatewayClass>,
}

/// The network gateways of a Gateway; most Gateways are none.
pub fn derive(
    key: &ObjectKey,
    view: &NetworkGatewayView<'_>,
    reads: &mut Reads,
) -> Output<ObjectKey, NetworkGatewayRow, Finding> {
    let Some(object) = view.gateways.get(reads, key) else {
        return Output::gone();
    };
    let Some(gateway) = object.ok() else {
        return Output::none();
    };
    let class = ObjectKey::cluster(gateway.class.clone());
    let class = view.gateway_classes.get(reads, &class);
    let controller = GatewayController::of(class.map(|class| &**class), &gateway.class);
    if controller != Some(GatewayController::Remote) {
        return Output::none();
    }
    let network = object
        .meta
        .label(LABEL_NETWORK)
        .cloned()
        .unwrap_or_default();
    let listener = (gateway.listeners.iter()).find(|l| l.protocol == keys::PROTOCOL_HBONE);
    let why = if network.is_empty() {
        Some("it has no label topology.istio.io/network")
    } else if listener.is_none() {
        Some("it has no listener with protocol HBONE")
    } else if gateway.addresses.is_empty() {
        Some("it has no usable address")
    } else {
        None
    };
    if let Some(why) = why {
        return Output::none().with_note(unusable(key, why));
    }
    let port = listener.map(|listener| listener.port).unwrap_or_default();
    let gateways = gateway.addresses.iter().map(|address| NetworkGateway {
        address: match address {
            GatewayStatusAddress::Hostname(name) => {
                GatewayAddress::Hostname(NamespacedHostname::new(key.ns.clone(), name.clone()))
            }
            GatewayStatusAddress::Ip(ip) => GatewayAddress::Ip {
                network: network.clone(),
                ip: *ip,
            },
        },
        port,
    });
    let row = NetworkGatewayRow {
        key: key.clone(),
        gateways: gateways.collect(),
        service_account: service_account(object),
        network,
    };
    Output::one(key.clone(), row)
}

fn service_account(object: &Parsed<Gateway>) -> Str {
    let named = object.meta.annotation(ANNOTATION_SERVICE_ACCOUNT);
    named.cloned().unwrap_or_else(|| {
        let name = &object.meta.key.name;
        Str::from(format!("{name}-{}", GatewayController::Remote.class()))
    })
}

fn unusable(key: &ObjectKey, why: &str) -> Finding {
    warning(
        "network-gateway-unusable",
        ObjectRef::new(Kind::Gateway, key.clone()),
        format!(
            "This Gateway leads to no network: {why}; workloads of that network cannot be reached through it"
        ),
        "Give it the network's label, a listener with protocol HBONE and the addresses of the gateway",
    )
}

/// The gateway to a network: the first with a port, Gateways in the order of their keys.
pub(crate) fn of_network(
    gateways: NetworkGatewayTable<'_>,
    reads: &mut Reads,
    network: &Str,
) -> Option<NetworkGateway> {
    let rows = gateways.by::<GatewaysByNetwork>(reads, network);
    let usable = rows.filter_map(|(key, row)| {
        let first = row.gateways.iter().find(|gateway| gateway.port != 0)?;
        Some((key, first))
    });
    let (_, first) = usable.min_by_key(|(key, _)| *key)?;
    Some(first.clone())
}
