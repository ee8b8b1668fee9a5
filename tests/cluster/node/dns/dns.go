// Package dns answers the names of Services, as cluster DNS does.
package dns

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Answer is what a name stands for.
type Answer struct {
	// Exists is false for a name that is not there (NXDOMAIN).
	Exists bool
	// Addresses of the name.
	Addresses []netip.Addr
	// Alias is the canonical name of an ExternalName service, if it is one.
	Alias string
}

// Lookup finds a name of a Service: lower case, without the cluster's domain
// and final dot. host is empty except for pods of a headless service.
type Lookup func(host, service, namespace string) Answer

// ttl of every record, in seconds: short, tests change Services all the time.
const ttl = 2

// Server answers queries for names below svc.Domain.
type Server struct {
	// Domain of the cluster, such as cluster.local.
	Domain string
	// Lookup finds the records.
	Lookup Lookup
}

// Resolve splits a queried name and looks it up.
func (s *Server) Resolve(name string) Answer {
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	name = strings.TrimSuffix(name, "."+s.Domain)
	rest, ok := strings.CutSuffix(name, ".svc")
	if !ok {
		return Answer{}
	}
	labels := strings.Split(rest, ".")
	switch len(labels) {
	case 2:
		return s.Lookup("", labels[0], labels[1])
	case 3:
		return s.Lookup(labels[0], labels[1], labels[2])
	}
	return Answer{}
}

// Reply answers one message; nil when it cannot be read at all.
func (s *Server) Reply(query []byte) []byte {
	var parser dnsmessage.Parser
	header, err := parser.Start(query)
	if err != nil || header.Response {
		return nil
	}
	question, err := parser.Question()
	if err != nil {
		return nil
	}
	answer := s.Resolve(question.Name.String())
	reply := dnsmessage.Message{
		Header: dnsmessage.Header{ID: header.ID, Response: true, Authoritative: true,
			RecursionDesired: header.RecursionDesired, RecursionAvailable: true},
		Questions: []dnsmessage.Question{question},
	}
	if !answer.Exists {
		reply.RCode = dnsmessage.RCodeNameError
	}
	reply.Answers = records(question, answer)
	packed, err := reply.Pack()
	if err != nil {
		return nil
	}
	return packed
}

func records(question dnsmessage.Question, answer Answer) []dnsmessage.Resource {
	var out []dnsmessage.Resource
	add := func(kind dnsmessage.Type, body dnsmessage.ResourceBody) {
		head := dnsmessage.ResourceHeader{Name: question.Name, Type: kind, Class: dnsmessage.ClassINET, TTL: ttl}
		out = append(out, dnsmessage.Resource{Header: head, Body: body})
	}
	if answer.Alias != "" {
		if name, err := dnsmessage.NewName(strings.TrimSuffix(answer.Alias, ".") + "."); err == nil {
			add(dnsmessage.TypeCNAME, &dnsmessage.CNAMEResource{CNAME: name})
		}
	}
	for _, address := range answer.Addresses {
		switch {
		case address.Is4() && question.Type == dnsmessage.TypeA:
			add(dnsmessage.TypeA, &dnsmessage.AResource{A: address.As4()})
		case address.Is6() && question.Type == dnsmessage.TypeAAAA:
			add(dnsmessage.TypeAAAA, &dnsmessage.AAAAResource{AAAA: address.As16()})
		}
	}
	return out
}

// Listen serves UDP and TCP on the address until the process ends.
func (s *Server) Listen(address string) error {
	packets, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	streams, err := net.Listen("tcp", address)
	if err != nil {
		_ = packets.Close()
		return err
	}
	go s.serveUDP(packets)
	go s.serveTCP(streams)
	return nil
}

func (s *Server) serveUDP(conn net.PacketConn) {
	buffer := make([]byte, 4096)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		if reply := s.Reply(buffer[:n]); reply != nil {
			_, _ = conn.WriteTo(reply, from)
		}
	}
}

func (s *Server) serveTCP(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go s.serveStream(conn)
	}
}

// serveStream answers queries, each prefixed by its length, until the client
// closes or is silent for 10 s.
func (s *Server) serveStream(conn net.Conn) {
	defer conn.Close()
	for {
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		var size uint16
		if binary.Read(conn, binary.BigEndian, &size) != nil {
			return
		}
		query := make([]byte, size)
		if _, err := io.ReadFull(conn, query); err != nil {
			return
		}
		reply := s.Reply(query)
		if reply == nil {
			return
		}
		framed := binary.BigEndian.AppendUint16(nil, uint16(len(reply)))
		if _, err := conn.Write(append(framed, reply...)); err != nil {
			return
		}
	}
}
