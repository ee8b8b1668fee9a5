package dns

import (
	"net/netip"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

func ask(t *testing.T, name string, kind dnsmessage.Type) dnsmessage.Message {
	t.Helper()
	s := &Server{Domain: "cluster.local", Lookup: func(host, service, namespace string) Answer {
		switch {
		case service == "web" && namespace == "app" && host == "":
			return Answer{Exists: true, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}
		case service == "web" && namespace == "app" && host == "web-0":
			return Answer{Exists: true, Addresses: []netip.Addr{netip.MustParseAddr("10.1.0.1")}}
		case service == "far" && namespace == "app":
			return Answer{Exists: true, Alias: "example.com"}
		}
		return Answer{}
	}}
	query := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, RecursionDesired: true}, Questions: []dnsmessage.Question{
		{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}}}
	packed, err := query.Pack()
	if err != nil {
		t.Fatal(err)
	}
	var reply dnsmessage.Message
	if err := reply.Unpack(s.Reply(packed)); err != nil {
		t.Fatal(err)
	}
	return reply
}

func TestNamesOfServices(t *testing.T) {
	for name, want := range map[string][4]byte{
		"web.app.svc.cluster.local.":       {10, 0, 0, 1},
		"WEB.app.svc.":                     {10, 0, 0, 1},
		"web-0.web.app.svc.cluster.local.": {10, 1, 0, 1},
	} {
		reply := ask(t, name, dnsmessage.TypeA)
		if len(reply.Answers) != 1 || reply.Answers[0].Body.(*dnsmessage.AResource).A != want {
			t.Errorf("%s: %v", name, reply.Answers)
		}
	}
}

func TestOtherNamesAndKinds(t *testing.T) {
	for _, name := range []string{"web.app.", "gone.app.svc.cluster.local.", "example.com.", "a.b.web.app.svc.", "."} {
		if reply := ask(t, name, dnsmessage.TypeA); reply.RCode != dnsmessage.RCodeNameError {
			t.Errorf("%s: %v", name, reply.RCode)
		}
	}
	if reply := ask(t, "web.app.svc.cluster.local.", dnsmessage.TypeAAAA); reply.RCode != 0 || len(reply.Answers) != 0 {
		t.Errorf("AAAA: %v", reply)
	}
	if reply := ask(t, "far.app.svc.cluster.local.", dnsmessage.TypeA); reply.Answers[0].Header.Type != dnsmessage.TypeCNAME {
		t.Errorf("alias: %v", reply)
	}
	if (&Server{}).Reply([]byte{1, 2}) != nil {
		t.Error("rubbish was answered")
	}
}
