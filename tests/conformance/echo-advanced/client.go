package main

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// timeout is how long one request may take.
const timeout = 10 * time.Second

// bodyMax bounds what is read of an answer, in bytes.
const bodyMax = 1 << 20

// order is what the client is asked to do.
type order struct {
	target  *url.URL
	method  string
	headers list
	count   int
}

// list is the flag -H.
type list []string

func (l *list) String() string         { return strings.Join(*l, ",") }
func (l *list) Set(value string) error { *l = append(*l, value); return nil }

// client sends requests and prints what came back: `client URL [--method=M]
// [-H NAME:VALUE]... [--count=N]`. It fails when one is not answered at all.
func client(args []string) error {
	o, err := parseOrder(args)
	if err != nil {
		return err
	}
	send := sendHTTP(o)
	if o.target.Scheme == "grpc" {
		connection, err := grpc.NewClient("passthrough:///"+o.target.Host, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		defer connection.Close()
		send = sendGRPC(o, connection)
	}
	for n := range o.count {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		answer, err := send(ctx)
		cancel()
		if err != nil {
			return fmt.Errorf("request %d of %d: %w", n+1, o.count, err)
		}
		write(os.Stdout, n, answer)
	}
	return nil
}

func parseOrder(args []string) (order, error) {
	o := order{}
	if len(args) == 0 {
		return o, fmt.Errorf("usage: client URL [--method=M] [-H NAME:VALUE]... [--count=N]")
	}
	flags := flag.NewFlagSet("client", flag.ContinueOnError)
	flags.StringVar(&o.method, "method", http.MethodGet, "method of HTTP")
	flags.Var(&o.headers, "H", "NAME:VALUE of a header; may be repeated")
	flags.IntVar(&o.count, "count", 1, "how many requests")
	if err := flags.Parse(args[1:]); err != nil {
		return o, err
	}
	target, err := url.Parse(args[0])
	if err != nil {
		return o, err
	}
	o.target = target
	return o, nil
}

// answer is one response.
type answer struct {
	status  int
	headers http.Header
	body    string
}

// write writes a response in lines, with an empty line after it.
func write(w io.Writer, n int, a answer) {
	fmt.Fprintf(w, "[%d] StatusCode=%d\n", n, a.status)
	names := make([]string, 0, len(a.headers))
	for name := range a.headers {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(w, "[%d] ResponseHeader=%s:%s\n", n, name, strings.Join(a.headers[name], ","))
	}
	for line := range strings.Lines(a.body) {
		if line = strings.TrimRight(line, "\r\n"); line != "" {
			fmt.Fprintf(w, "[%d body] %s\n", n, line)
		}
	}
	fmt.Fprintln(w)
}

func sendHTTP(o order) func(context.Context) (answer, error) {
	c := http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, //nolint:gosec // Tests look at routes, not at this certificate.
		// The redirect itself is what is looked at.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func(ctx context.Context) (answer, error) {
		request, err := http.NewRequestWithContext(ctx, o.method, o.target.String(), nil)
		if err != nil {
			return answer{}, err
		}
		for _, header := range o.headers {
			name, value, _ := strings.Cut(header, ":")
			if strings.EqualFold(name, "host") {
				request.Host = value
				continue
			}
			request.Header.Add(name, value)
		}
		response, err := c.Do(request)
		if err != nil {
			return answer{}, err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(io.LimitReader(response.Body, bodyMax))
		return answer{response.StatusCode, response.Header, string(body)}, err
	}
}

// sendGRPC calls once on the connection; an answer counts as status 200.
func sendGRPC(o order, connection *grpc.ClientConn) func(context.Context) (answer, error) {
	return func(ctx context.Context) (answer, error) {
		for _, header := range o.headers {
			name, value, _ := strings.Cut(header, ":")
			ctx = metadata.AppendToOutgoingContext(ctx, strings.ToLower(name), value)
		}
		var headers metadata.MD
		request, reply := "echo", ""
		err := connection.Invoke(ctx, echoMethod, &request, &reply, grpc.ForceCodec(text{}), grpc.Header(&headers))
		got := answer{http.StatusOK, http.Header{}, reply}
		for name, values := range headers {
			got.headers[http.CanonicalHeaderKey(name)] = values
		}
		return got, err
	}
}
