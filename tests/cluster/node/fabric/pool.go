package fabric

import (
	"fmt"
	"net/netip"
	"sync"
)

// Pool hands out the addresses of a prefix in turn, so that an address that was
// just given back is used again last. Network and broadcast address are left out.
type Pool struct {
	prefix netip.Prefix
	mutex  sync.Mutex
	last   netip.Addr
	used   map[netip.Addr]bool
}

// NewPool is a pool of all addresses of the prefix.
func NewPool(prefix netip.Prefix) *Pool {
	prefix = prefix.Masked()
	return &Pool{prefix: prefix, last: prefix.Addr(), used: map[netip.Addr]bool{}}
}

// Take reserves a free address.
func (p *Pool) Take() (netip.Addr, error) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	address := p.last
	for range 1 << min(p.prefix.Addr().BitLen()-p.prefix.Bits(), 20) {
		address = address.Next()
		if !p.prefix.Contains(address) || !p.prefix.Contains(address.Next()) {
			address = p.prefix.Addr()
			continue
		}
		if address != p.prefix.Addr() && !p.used[address] {
			p.used[address], p.last = true, address
			return address, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no free address in %s", p.prefix)
}

// Claim reserves a certain address; false when it is taken or not of the pool.
func (p *Pool) Claim(address netip.Addr) bool {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if !p.prefix.Contains(address) || p.used[address] {
		return false
	}
	p.used[address] = true
	return true
}

// Give returns an address to the pool.
func (p *Pool) Give(address netip.Addr) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	delete(p.used, address)
}
