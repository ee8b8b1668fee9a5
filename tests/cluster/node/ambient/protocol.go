// Package ambient plays the node agent of an ambient mesh: it redirects the
// traffic of enrolled pods inside their network namespaces and hands the
// namespaces to ztunnel over the node-agent socket.
package ambient

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Pod is what ztunnel is told of an enrolled pod.
type Pod struct {
	UID, Namespace, Name, ServiceAccount string
	// NetNS is the path of the pod's network namespace.
	NetNS string
}

// Field numbers of the node-agent protocol (package istio.workload.zds):
// WorkloadRequest{add = 1, del = 2, snapshot_sent = 3}, WorkloadResponse{ack = 1}.
const (
	fieldAdd      = 1
	fieldDelete   = 2
	fieldSnapshot = 3
	fieldAck      = 1
)

// addRequest is WorkloadRequest{add: AddWorkload{uid = 1, workload_info = 2}}.
func addRequest(p Pod) []byte {
	info := text(nil, 1, p.Name)
	info = text(info, 2, p.Namespace)
	info = text(info, 3, p.ServiceAccount)
	return message(fieldAdd, append(text(nil, 1, p.UID), message(2, info)...))
}

// deleteRequest is WorkloadRequest{del: DelWorkload{uid = 2}}.
func deleteRequest(uid string) []byte { return message(fieldDelete, text(nil, 2, uid)) }

// snapshotRequest is WorkloadRequest{snapshot_sent: SnapshotSent{}}.
func snapshotRequest() []byte { return message(fieldSnapshot, nil) }

func text(out []byte, field protowire.Number, value string) []byte {
	return protowire.AppendString(protowire.AppendTag(out, field, protowire.BytesType), value)
}

func message(field protowire.Number, body []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), body)
}

// parseHello checks ZdsHello{version = 1: V1}.
func parseHello(data []byte) error {
	version := uint64(0)
	for len(data) > 0 {
		field, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return protowire.ParseError(n)
		}
		data = data[n:]
		if field == 1 && kind == protowire.VarintType {
			if version, n = protowire.ConsumeVarint(data); n < 0 {
				return protowire.ParseError(n)
			}
		} else if n = protowire.ConsumeFieldValue(field, kind, data); n < 0 {
			return protowire.ParseError(n)
		}
		data = data[n:]
	}
	if version != 1 {
		return fmt.Errorf("node-agent protocol version %d is not 1", version)
	}
	return nil
}

// parseAck reads WorkloadResponse{ack: Ack{error = 1}}: the error text, empty
// when all is well.
func parseAck(data []byte) (string, error) {
	field, kind, n := protowire.ConsumeTag(data)
	if n < 0 || field != fieldAck || kind != protowire.BytesType {
		return "", fmt.Errorf("not an acknowledgement: %x", data)
	}
	ack, n := protowire.ConsumeBytes(data[n:])
	if n < 0 {
		return "", protowire.ParseError(n)
	}
	if len(ack) == 0 {
		return "", nil
	}
	field, kind, n = protowire.ConsumeTag(ack)
	if n < 0 || field != 1 || kind != protowire.BytesType {
		return "", fmt.Errorf("unknown acknowledgement: %x", ack)
	}
	problem, n := protowire.ConsumeString(ack[n:])
	if n < 0 {
		return "", protowire.ParseError(n)
	}
	return problem, nil
}
