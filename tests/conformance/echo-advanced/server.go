package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// ports is a flag that may be repeated.
type ports []string

func (p *ports) String() string         { return strings.Join(*p, ",") }
func (p *ports) Set(value string) error { *p = append(*p, value); return nil }

// serve listens until it is told to end. Ports of --port speak HTTP, with TLS if
// --tls names them too.
func serve(args []string) error {
	var plain, secure, grpcPorts, tcp ports
	flags := flag.NewFlagSet("echo-advanced", flag.ContinueOnError)
	flags.Var(&plain, "port", "HTTP port; may be repeated")
	flags.Var(&secure, "tls", "which of these have TLS; may be repeated")
	flags.Var(&grpcPorts, "grpc", "gRPC port; may be repeated")
	flags.Var(&tcp, "tcp", "port that echoes bytes; may be repeated")
	certificate := flags.String("crt", "", "certificate for TLS; one is made if the file is not there")
	key := flags.String("key", "", "its key")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := installClient(); err != nil {
		return err
	}
	failed := make(chan error, 1)
	start := func(port string, config *tls.Config, serve func(net.Listener) error) error {
		l, err := net.Listen("tcp", ":"+port)
		if err != nil {
			return err
		}
		if config != nil {
			l = tls.NewListener(l, config)
		}
		go func() { failed <- serve(l) }()
		return nil
	}
	for _, port := range plain {
		var config *tls.Config
		if slices.Contains(secure, port) {
			own, err := loadCertificate(*certificate, *key)
			if err != nil {
				return err
			}
			config = &tls.Config{Certificates: []tls.Certificate{own}}
		}
		if err := start(port, config, httpServer(port).Serve); err != nil {
			return err
		}
	}
	for _, port := range grpcPorts {
		if err := start(port, nil, grpcServer(port).Serve); err != nil {
			return err
		}
	}
	for _, port := range tcp {
		if err := start(port, nil, echoBytes); err != nil {
			return err
		}
	}
	go func() {
		wait()
		failed <- nil
	}()
	return <-failed
}

// loadCertificate reads the pair, or makes one where the image would have its own.
func loadCertificate(certificate, key string) (tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err == nil || !errors.Is(err, os.ErrNotExist) {
		return pair, err
	}
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"echo"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
	}
	raw, err := x509.CreateCertificate(rand.Reader, &template, &template, secret.Public(), secret)
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: secret}, err
}

func httpServer(port string) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{Protocols: protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		var b strings.Builder
		field(&b, "URL", r.URL.RequestURI())
		field(&b, "Method", r.Method)
		field(&b, "Proto", r.Proto)
		describe(&b, port, r.Host, r.RemoteAddr, r.Header)
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, b.String())
	})}
}

// describe writes what is said of requests of each protocol.
func describe(b *strings.Builder, port, host, from string, headers map[string][]string) {
	hostname, _ := os.Hostname()
	ip, _, _ := net.SplitHostPort(from)
	field(b, "Host", host)
	field(b, "Hostname", hostname)
	field(b, "ServicePort", port)
	field(b, "IP", ip)
	names := make([]string, 0, len(headers))
	for name := range headers {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, value := range headers[name] {
			field(b, "RequestHeader", name+":"+value)
		}
	}
}

func field(b *strings.Builder, name, value string) { fmt.Fprintf(b, "%s=%s\n", name, value) }

// echoMethod is the one that the client calls; the server answers every method.
const echoMethod = "/proto.EchoTestService/Echo"

// grpcServer answers each unary call with a description of it. Messages are text:
// client and server are the same program, and nobody else reads them.
func grpcServer(port string) *grpc.Server {
	return grpc.NewServer(grpc.ForceServerCodec(text{}), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		var request string
		if err := stream.RecvMsg(&request); err != nil {
			return err
		}
		method, _ := grpc.MethodFromServerStream(stream)
		headers, host, from := callFacts(stream.Context())
		var b strings.Builder
		field(&b, "URL", method)
		field(&b, "Proto", "GRPC")
		describe(&b, port, host, from, headers)
		answer := b.String()
		return stream.SendMsg(&answer)
	}))
}

// callFacts are headers, authority and peer of a call.
func callFacts(ctx context.Context) (headers map[string][]string, host, from string) {
	incoming, _ := metadata.FromIncomingContext(ctx)
	headers = map[string][]string{}
	for name, values := range incoming {
		if name == ":authority" {
			host = strings.Join(values, ",")
			continue
		}
		headers[http.CanonicalHeaderKey(name)] = values
	}
	return headers, host, peerAddress(ctx)
}

func echoBytes(l net.Listener) error {
	for {
		connection, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer connection.Close()
			_, _ = io.Copy(connection, connection)
		}()
	}
}
