package webhook

import (
	"fmt"
	"net/netip"
	"syscall"
)

// blockedError is an address that is not connected to.
type blockedError struct{ addr netip.Addr }

func (e *blockedError) Error() string {
	return fmt.Sprintf("the host's address %s is not public; allow_private=true permits it", e.addr)
}

// guard checks the address of each connection when it is made, after its name was resolved: what a
// name resolves to can change at any time.
type guard struct {
	private  bool // all may be connected to
	loopback bool // the URL names this machine: it alone may be
}

// control is a net.Dialer's.
func (g guard) control(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("check the address %q: %w", address, err)
	}
	addr := at.Addr()
	switch {
	case g.private, g.loopback && addr.Unmap().IsLoopback():
		return nil
	case g.loopback || !public(addr):
		return &blockedError{addr}
	}
	return nil
}

// public reports whether an address is one of the open internet. Addresses that hold one of IPv4
// inside are what that is.
func public(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	for _, p := range embedding() {
		if p.prefix.Contains(addr) {
			b := addr.As16()
			return public(netip.AddrFrom4([4]byte(b[p.at : p.at+4])))
		}
	}
	for _, p := range special() {
		if p.Contains(addr) {
			return false
		}
	}
	return addr.IsGlobalUnicast() && !addr.IsPrivate()
}

// embedded says where an address of IPv6 holds one of IPv4.
type embedded struct {
	prefix netip.Prefix
	at     int
}

func embedding() []embedded {
	return []embedded{
		{netip.MustParsePrefix("64:ff9b::/96"), 12},    // NAT64
		{netip.MustParsePrefix("::ffff:0:0:0/96"), 12}, // translated
		{netip.MustParsePrefix("2002::/16"), 2},        // 6to4
	}
}

// special are ranges that IsGlobalUnicast and IsPrivate let pass.
func special() []netip.Prefix {
	var all []netip.Prefix
	for _, text := range []string{
		"0.0.0.0/8", "100.64.0.0/10", // this network; carriers' own
		"192.0.0.0/24", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", // protocols, texts
		"192.88.99.0/24", "198.18.0.0/15", "240.0.0.0/4", // 6to4 relays, benchmarks, reserved
		"::/96", "64:ff9b:1::/48", "100::/64", // compatible, local NAT64, discarded
		"2001::/23", "2001:db8::/32", "fec0::/10", // Teredo and protocols, texts, site-local
		"3fff::/20", "5f00::/16", // texts, segment routing
	} {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}
