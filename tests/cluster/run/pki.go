package run

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"sigs.k8s.io/yaml"
)

const certificateLife = 365 * 24 * time.Hour

// pki is a directory of keys and certificates, named like kubeadm's.
type pki struct {
	dir string
}

// authority signs certificates.
type authority struct {
	name        string
	certificate *x509.Certificate
	key         crypto.Signer
}

// client is who a kubeconfig or certificate speaks for.
type client struct {
	file, user string
	groups     []string
}

// PKIMain makes the keys and certificates that a cluster in a slot would have.
func PKIMain(args []string) int {
	flags := flag.NewFlagSet("pki", flag.ExitOnError)
	dir := flags.String("dir", "", "where to write them")
	slot := flags.Int("slot", 0, "the slot whose addresses they are for")
	nodes := flags.Int("nodes", 2, "how many nodes get one")
	_ = flags.Parse(args)
	if *dir == "" {
		fmt.Fprintln(os.Stderr, "cluster pki: --dir is needed")
		return 2
	}
	if err := makePKI(*dir, plan(*slot, *nodes)); err != nil {
		fmt.Fprintf(os.Stderr, "cluster pki: %v\n", err)
		return 1
	}
	return 0
}

// makePKI writes authorities, certificates, token keys and kubeconfigs.
func makePKI(dir string, p Plan) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	k := pki{dir: dir}
	ca, err := k.authority("ca", "kubernetes")
	if err != nil {
		return err
	}
	frontProxyCA, err := k.authority("front-proxy-ca", "front-proxy-ca")
	if err != nil {
		return err
	}
	if err := k.tokenKeys(); err != nil {
		return err
	}
	server := &x509.Certificate{
		Subject: pkix.Name{CommonName: "kube-apiserver"},
		DNSNames: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
			"kubernetes.default.svc.cluster.local"},
		IPAddresses: addresses(p.FabricIP, p.ServiceIP, "127.0.0.1"),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if err := k.issue("apiserver", ca, server); err != nil {
		return err
	}
	kubelets := client{file: "apiserver-kubelet-client", user: "kube-apiserver-kubelet-client", groups: []string{"system:masters"}}
	if err := k.issue(kubelets.file, ca, kubelets.certificate()); err != nil {
		return err
	}
	frontProxy := client{file: "front-proxy-client", user: "front-proxy-client"}
	if err := k.issue(frontProxy.file, frontProxyCA, frontProxy.certificate()); err != nil {
		return err
	}
	for _, c := range users(p) {
		certificate := c.certificate()
		for _, node := range p.Nodes {
			if c.file == node.Name {
				// The same one serves logs and exec.
				certificate.ExtKeyUsage = append(certificate.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
				certificate.DNSNames = []string{node.Name}
				certificate.IPAddresses = addresses(node.IP)
			}
		}
		if err := k.issue(c.file, ca, certificate); err != nil {
			return err
		}
		if err := k.kubeconfig(c.file, p); err != nil {
			return err
		}
	}
	return nil
}

// users are those that get a kubeconfig.
func users(p Plan) []client {
	all := []client{
		{file: "admin", user: "kubernetes-admin", groups: []string{"system:masters"}},
		// Ours alone, so that the audit log tells our own questions from those of tests.
		{file: "supervisor", user: "cluster-supervisor", groups: []string{"system:masters"}},
		// The nodes are their own CNI agents and load balancers, which kubelets are not.
		{file: "nodes", user: "cluster-nodes", groups: []string{"system:masters"}},
		{file: "kube-controller-manager", user: "system:kube-controller-manager"},
		{file: "kube-scheduler", user: "system:kube-scheduler"},
		{file: "kube-proxy", user: "system:kube-proxy"},
	}
	for _, node := range p.Nodes {
		all = append(all, client{file: node.Name, user: "system:node:" + node.Name, groups: []string{"system:nodes"}})
	}
	return all
}

func (c client) certificate() *x509.Certificate {
	return &x509.Certificate{
		Subject:     pkix.Name{CommonName: c.user, Organization: c.groups},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
}

func addresses(texts ...string) []net.IP {
	var all []net.IP
	for _, text := range texts {
		all = append(all, net.ParseIP(text))
	}
	return all
}

func (k pki) path(file string) string { return filepath.Join(k.dir, file) }

func (k pki) authority(name, commonName string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: commonName},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	certificate, err := k.sign(name, template, template, key, key)
	if err != nil {
		return nil, err
	}
	return &authority{name: name, certificate: certificate, key: key}, nil
}

func (k pki) issue(name string, by *authority, template *x509.Certificate) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	_, err = k.sign(name, template, by.certificate, key, by.key)
	return err
}

// sign completes a template and writes certificate and key.
func (k pki) sign(name string, template, parent *x509.Certificate, key, by crypto.Signer) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	// Clocks of tests may be turned back a little.
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(certificateLife)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	if err != nil {
		return nil, err
	}
	if err := k.pem(name+".crt", "CERTIFICATE", der); err != nil {
		return nil, err
	}
	if err := k.privateKey(name+".key", key); err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// tokenKeys are for tokens of service accounts: RSA, as in most clusters.
func (k pki) tokenKeys() error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	if err := k.pem("sa.pub", "PUBLIC KEY", public); err != nil {
		return err
	}
	return k.privateKey("sa.key", key)
}

func (k pki) privateKey(file string, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return k.pem(file, "PRIVATE KEY", der)
}

func (k pki) pem(file, kind string, der []byte) error {
	return os.WriteFile(k.path(file), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

// kubeconfig holds everything inline, so that the file can be moved about.
func (k pki) kubeconfig(name string, p Plan) error {
	data := map[string][]byte{}
	for _, file := range []string{"ca.crt", name + ".crt", name + ".key"} {
		content, err := os.ReadFile(k.path(file))
		if err != nil {
			return err
		}
		data[file] = content
	}
	text, err := yaml.Marshal(map[string]any{
		"apiVersion":      "v1",
		"kind":            "Config",
		"current-context": p.Fabric,
		"clusters": []any{map[string]any{"name": p.Fabric, "cluster": map[string]any{
			"server":                     p.server(),
			"certificate-authority-data": data["ca.crt"],
		}}},
		"users": []any{map[string]any{"name": name, "user": map[string]any{
			"client-certificate-data": data[name+".crt"],
			"client-key-data":         data[name+".key"],
		}}},
		"contexts": []any{map[string]any{"name": p.Fabric, "context": map[string]any{
			"cluster": p.Fabric, "user": name,
		}}},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(k.path(name+".kubeconfig"), text, 0o600)
}
