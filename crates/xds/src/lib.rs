//! Sans-I/O xDS sessions, wire framing and the ADS service.
