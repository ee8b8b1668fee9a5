package main

import (
	"context"
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	upstream "sigs.k8s.io/gateway-api/conformance/utils/echo"
)

func orderOf(t *testing.T, args ...string) order {
	t.Helper()
	o, err := parseOrder(args)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// printed is what the client says of a response, as the suite reads it.
func printed(t *testing.T, send func(context.Context) (answer, error)) upstream.Response {
	t.Helper()
	got, err := send(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	write(&b, 0, got)
	if strings.Count(b.String(), "\n\n") != 1 {
		t.Errorf("responses cannot be told apart: %q", b.String())
	}
	return upstream.ParseResponse(b.String())
}

func TestTheSuiteUnderstandsAnAnswerOverHTTP(t *testing.T) {
	server := httptest.NewServer(httpServer("8080").Handler)
	defer server.Close()
	got := printed(t, sendHTTP(orderOf(t, server.URL+"/a?b=c", "--method=PUT", "-H", "X-One:1", "-H", "Host:other")))
	if got.Code != "200" || got.Host != "other" || got.Method != "PUT" || got.URL != "/a?b=c" || got.Port != "8080" {
		t.Errorf("%v", got)
	}
	if got.Hostname == "" || got.RequestHeaders.Get("X-One") != "1" || got.ResponseHeaders.Get("Content-Type") == "" {
		t.Errorf("%v", got)
	}
}

func TestTheSuiteUnderstandsAnAnswerOverGRPC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpcServer("7070")
	defer server.Stop()
	go func() { _ = server.Serve(l) }()
	connection, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	got := printed(t, sendGRPC(orderOf(t, "grpc://echo:7070", "-H", "X-One:1"), connection))
	if got.Code != "200" || got.Hostname == "" || got.URL != echoMethod || got.RequestHeaders.Get("X-One") != "1" {
		t.Errorf("%v", got)
	}
}

func TestTheProgramIsTheClientByItsName(t *testing.T) {
	server := httptest.NewServer(httpServer("8080").Handler)
	defer server.Close()
	// It ends once it is answered.
	if err := run([]string{"/usr/bin/client", server.URL}); err != nil {
		t.Error(err)
	}
	if err := run([]string{"client", "http://127.0.0.1:1/"}); err == nil {
		t.Error("nobody answered, and that was no failure")
	}
}

func TestAnOrderIsReadAsTheSuiteWritesIt(t *testing.T) {
	o := orderOf(t, "http://echo:80/x", "--method=GET", "-H", "a:b:c", "-H", "d:", "--count=500")
	if o.target.Host != "echo:80" || o.count != 500 || strings.Join(o.headers, "|") != "a:b:c|d:" {
		t.Errorf("%+v", o)
	}
	if _, err := parseOrder(nil); err == nil {
		t.Error("no URL was accepted")
	}
}
