package programs

import (
	"encoding/binary"
	"io"
	"net/http"
	"os"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// maxMessage bounds a gRPC message that is echoed, in bytes.
const maxMessage = 4 << 20

// serveGRPC answers unary calls without a gRPC library (which would be
// initialised in every process of the binary): grpc.health.v1.Health/Check says
// SERVING, a call with the header x-echo-status ends with that code, and every
// other call gets its own message back. The header x-pod names the pod.
func serveGRPC(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
	w.Header().Set("X-Pod", podName())
	w.Header().Set("X-Version", os.Getenv("VERSION"))
	message, err := readMessage(r.Body)
	code, text := "0", ""
	switch {
	case err != nil:
		code, text = "3", err.Error()
	case r.Header.Get("X-Echo-Status") != "":
		code, text = r.Header.Get("X-Echo-Status"), "as asked"
	case strings.HasSuffix(r.URL.Path, "/grpc.health.v1.Health/Check"):
		// HealthCheckResponse{status: SERVING}
		message = protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1)
	}
	w.WriteHeader(http.StatusOK)
	if code == "0" {
		_, _ = w.Write(append(frameHeader(len(message)), message...))
	}
	w.Header().Set("Grpc-Status", code)
	w.Header().Set("Grpc-Message", text)
}

func frameHeader(size int) []byte {
	return binary.BigEndian.AppendUint32([]byte{0}, uint32(size))
}

// readMessage reads one length-prefixed gRPC message.
func readMessage(body io.Reader) ([]byte, error) {
	var header [5]byte
	if _, err := io.ReadFull(body, header[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(header[1:])
	if size > maxMessage {
		return nil, io.ErrShortBuffer
	}
	message := make([]byte, size)
	_, err := io.ReadFull(body, message)
	return message, err
}
