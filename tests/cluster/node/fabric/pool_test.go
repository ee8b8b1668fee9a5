package fabric

import (
	"net/netip"
	"testing"
)

func TestPoolHandsOutEveryAddressOnceAndReusesTheOldestLast(t *testing.T) {
	p := NewPool(netip.MustParsePrefix("10.0.0.0/29"))
	if !p.Claim(netip.MustParseAddr("10.0.0.2")) || p.Claim(netip.MustParseAddr("10.0.1.1")) {
		t.Fatal("claims")
	}
	var got []string
	for range 5 {
		a, err := p.Take()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, a.String())
	}
	want := []string{"10.0.0.1", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
	if _, err := p.Take(); err == nil {
		t.Fatal("the pool is empty")
	}
	p.Give(netip.MustParseAddr("10.0.0.3"))
	if a, err := p.Take(); err != nil || a.String() != "10.0.0.3" {
		t.Fatal(a, err)
	}
}
