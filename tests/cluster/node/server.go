package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/portforward"
	remoteconsts "k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/klog/v2"
	portserver "k8s.io/kubelet/pkg/cri/streaming/portforward"
	remoteserver "k8s.io/kubelet/pkg/cri/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"

	"ambientd/cluster/node/fabric"
)

// idleTimeout ends streams on which nothing happens.
const idleTimeout = 4 * time.Hour

// serveKubelet serves the part of the kubelet's API that kubectl uses.
func (n *Node) serveKubelet(ctx context.Context) error {
	config, err := n.serverTLS()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(n.config.Address.String(), strconv.Itoa(n.config.Port)))
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	mux.HandleFunc("GET /pods", n.servePods)
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", n.serveLogs)
	mux.HandleFunc("/exec/{namespace}/{pod}/{container}", n.serveExec)
	mux.HandleFunc("/portForward/{namespace}/{pod}", n.servePortForward)
	// Streams are upgrades of HTTP/1.1 connections.
	config.NextProtos = []string{"http/1.1"}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		if err := server.Serve(tls.NewListener(listener, config)); !errors.Is(err, http.ErrServerClosed) {
			klog.Errorf("kubelet API: %v", err)
		}
	}()
	context.AfterFunc(ctx, func() { _ = server.Close() })
	return nil
}

// serverTLS is the given certificate or a self-signed one.
func (n *Node) serverTLS() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if n.config.ClientCA != "" {
		pem, err := os.ReadFile(n.config.ClientCA)
		if err != nil {
			return nil, err
		}
		config.ClientCAs, config.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		if !config.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", n.config.ClientCA)
		}
	}
	if n.config.TLSCert != "" {
		pair, err := tls.LoadX509KeyPair(n.config.TLSCert, n.config.TLSKey)
		config.Certificates = []tls.Certificate{pair}
		return config, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		IPAddresses: []net.IP{n.config.Address.AsSlice()}, DNSNames: []string{n.config.Name},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	config.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
	return config, err
}

// find the worker of a pod by name.
func (n *Node) find(namespace, pod string) *worker {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	for _, w := range n.workers {
		if !w.over && w.name() == namespace+"/"+pod {
			return w
		}
	}
	return nil
}

func (w *worker) container(name string) *container {
	for _, c := range w.containers {
		if c.spec.Name == name {
			return c
		}
	}
	return nil
}

func (n *Node) servePods(w http.ResponseWriter, _ *http.Request) {
	pods := v1.PodList{}
	n.mutex.Lock()
	for _, worker := range n.workers {
		pod, _ := worker.current()
		pods.Items = append(pods.Items, *pod)
	}
	n.mutex.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(pods)
}

func (n *Node) serveExec(w http.ResponseWriter, r *http.Request) {
	pod := n.find(r.PathValue("namespace"), r.PathValue("pod"))
	if pod == nil {
		http.Error(w, "pod not found", http.StatusNotFound)
		return
	}
	options, err := remoteserver.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	remoteserver.ServeExec(w, r, executor{pod}, pod.name(), pod.uid, r.PathValue("container"),
		r.URL.Query()["command"], options, idleTimeout, 30*time.Second, remoteconsts.SupportedStreamingProtocols)
}

// executor runs commands in the containers of a pod.
type executor struct{ pod *worker }

// ExecInContainer implements remoteserver.Executor.
func (e executor) ExecInContainer(ctx context.Context, _ string, _ types.UID, name string, argv []string,
	in io.Reader, out, problems io.WriteCloser, terminal bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	c := e.pod.container(name)
	if c == nil {
		return fmt.Errorf("container %s not found", name)
	}
	e.pod.mutex.Lock()
	p := c.proc
	e.pod.mutex.Unlock()
	if p == nil {
		return fmt.Errorf("container %s is not running", name)
	}
	cmd := e.pod.node.command(ctx, p, terminal, argv)
	var err error
	if terminal {
		err = runInTerminal(cmd, in, out, resize)
	} else {
		err = runWithPipes(cmd, in, out, problems)
	}
	var exit interface{ ExitCode() int }
	if errors.As(err, &exit) {
		return utilexec.CodeExitError{Err: err, Code: exit.ExitCode()}
	}
	return err
}

func (n *Node) servePortForward(w http.ResponseWriter, r *http.Request) {
	pod := n.find(r.PathValue("namespace"), r.PathValue("pod"))
	if pod == nil {
		http.Error(w, "pod not found", http.StatusNotFound)
		return
	}
	options, err := portserver.NewV4Options(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	portserver.ServePortForward(w, r, forwarder{pod}, pod.name(), pod.uid, options, idleTimeout,
		30*time.Second, []string{portforward.PortForwardV1Name})
}

// forwarder connects to ports on the loopback address of a pod.
type forwarder struct{ pod *worker }

// PortForward implements portserver.PortForwarder.
func (f forwarder) PortForward(ctx context.Context, _ string, _ types.UID, port int32, stream io.ReadWriteCloser) error {
	conn, err := fabric.Dial(ctx, f.pod.namespace(), net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if err != nil {
		return err
	}
	defer conn.Close()
	done := make(chan struct{}, 2)
	go func() {
		_, _ = io.Copy(conn, stream)
		_ = conn.(*net.TCPConn).CloseWrite()
		done <- struct{}{}
	}()
	go func() {
		_, _ = io.Copy(stream, conn)
		done <- struct{}{}
	}()
	<-done
	return nil
}
