//! Test helpers: HBONE client and server, ADS client, Envoy runner, scenarios.
