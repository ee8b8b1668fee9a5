package programs

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"
)

// echo serves HTTP/1.1, HTTP/2 without TLS and gRPC on --port (or PORTS, comma
// separated; default 8080), the same behind TLS on --tls (or TLS_PORTS) with a
// certificate for the pod's name that it signs itself, and echoes bytes on --tcp
// (or TCP_PORTS).
//
//	/status/NNN   answers with that status
//	/delay/2s     answers after that time (at most 5 min)
//	/healthz      200 until the server is told to end
//
// Everything else answers 200 with a JSON description of the request. On
// SIGTERM the server stops accepting and lets requests in flight end, at most
// 10 s; SHUTDOWN_DELAY (a duration) keeps it accepting for that long before.
func echo(args []string) int {
	flags := flag.NewFlagSet("echo", flag.ExitOnError)
	ports := flags.String("port", environment("PORTS", "8080"), "HTTP and gRPC ports, comma separated")
	tcp := flags.String("tcp", os.Getenv("TCP_PORTS"), "TCP echo ports, comma separated")
	tlsPorts := flags.String("tls", os.Getenv("TLS_PORTS"), "HTTPS ports, comma separated")
	_ = flags.Parse(args)

	server := &http.Server{Handler: h2c.NewHandler(http.HandlerFunc(serve), &http2.Server{})}
	failed := make(chan error, 1)
	for _, port := range split(*ports) {
		listen(port, failed, func(l net.Listener) error { return server.Serve(l) })
	}
	for _, port := range split(*tcp) {
		listen(port, failed, serveTCP)
	}
	if ports := split(*tlsPorts); len(ports) > 0 {
		certificate, err := selfSigned(podName())
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		config := &tls.Config{Certificates: []tls.Certificate{certificate}}
		for _, port := range ports {
			listen(port, failed, func(l net.Listener) error { return server.Serve(tls.NewListener(l, config)) })
		}
	}
	select {
	case err := <-failed:
		fmt.Fprintln(os.Stderr, err)
		return 1
	case <-endSignal():
	}
	if delay, err := time.ParseDuration(os.Getenv("SHUTDOWN_DELAY")); err == nil {
		time.Sleep(delay)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = server.Shutdown(ctx)
	return 0
}

func listen(port string, failed chan<- error, serve func(net.Listener) error) {
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		failed <- err
		return
	}
	fmt.Println("listening on", l.Addr())
	go func() {
		if err := serve(l); err != nil && err != http.ErrServerClosed {
			failed <- err
		}
	}()
}

// reply is the JSON answer; tests read these fields.
type reply struct {
	Pod       string            `json:"pod"`
	Namespace string            `json:"namespace"`
	Node      string            `json:"node,omitempty"`
	Version   string            `json:"version,omitempty"`
	Method    string            `json:"method"`
	Host      string            `json:"host"`
	Path      string            `json:"path"`
	Query     string            `json:"query,omitempty"`
	Protocol  string            `json:"protocol"`
	Headers   map[string]string `json:"headers"`
	Remote    string            `json:"remote"`
	Local     string            `json:"local"`
	BodySize  int64             `json:"bodySize"`
}

func serve(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		serveGRPC(w, r)
		return
	}
	if text, ok := strings.CutPrefix(r.URL.Path, "/delay/"); ok {
		if delay, err := time.ParseDuration(text); err == nil {
			select {
			case <-time.After(min(delay, 5*time.Minute)):
			case <-r.Context().Done():
				return
			}
		}
	}
	size, _ := io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Pod", podName())
	if text, ok := strings.CutPrefix(r.URL.Path, "/status/"); ok {
		if code, err := strconv.Atoi(text); err == nil && code >= 200 && code <= 599 {
			w.WriteHeader(code)
		}
	}
	if r.Method == http.MethodHead {
		return
	}
	_ = json.NewEncoder(w).Encode(describe(r, size))
}

func describe(r *http.Request, size int64) reply {
	headers := map[string]string{}
	for name, values := range r.Header {
		headers[strings.ToLower(name)] = strings.Join(values, ",")
	}
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	answer := reply{
		Pod: podName(), Namespace: os.Getenv("POD_NAMESPACE"), Node: os.Getenv("NODE_NAME"),
		Version: os.Getenv("VERSION"), Method: r.Method, Host: r.Host, Path: r.URL.Path,
		Query: r.URL.RawQuery, Protocol: r.Proto, Headers: headers, Remote: r.RemoteAddr, BodySize: size,
	}
	if local != nil {
		answer.Local = local.String()
	}
	return answer
}

// serveTCP writes a line that names the pod, then echoes.
func serveTCP(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			fmt.Fprintf(conn, "%s\n", podName())
			_, _ = io.Copy(conn, conn)
		}()
	}
}

func podName() string {
	name, _ := os.Hostname()
	return environment("POD_NAME", name)
}

func environment(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}
