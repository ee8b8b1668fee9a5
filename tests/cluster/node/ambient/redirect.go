package ambient

import (
	"path/filepath"
	"strings"

	"ambientd/cluster/node/fabric"
)

// rules are those that the CNI agent of Istio installs in a pod: outbound
// connections to 15001, inbound ones to 15006 except those to 15008, DNS to
// 15053. 0x539 marks ztunnel's own sockets; the connection mark 0x111 brings the
// replies to connections that carry a client's address back to ztunnel.
const rules = `*mangle
:ISTIO_PRERT - [0:0]
:ISTIO_OUTPUT - [0:0]
-A PREROUTING -j ISTIO_PRERT
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_PRERT -m mark --mark 0x539/0xfff -j CONNMARK --set-xmark 0x111/0xfff
-A ISTIO_OUTPUT -m connmark --mark 0x111/0xfff -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff
COMMIT
*nat
:ISTIO_PRERT - [0:0]
:ISTIO_OUTPUT - [0:0]
-A PREROUTING -j ISTIO_PRERT
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_PRERT -s PROBE/32 -p tcp -j ACCEPT
-A ISTIO_OUTPUT -d PROBE/32 -p tcp -j ACCEPT
-A ISTIO_PRERT ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15006
-A ISTIO_OUTPUT ! -o lo -p udp -m mark ! --mark 0x539/0xfff -m udp --dport 53 -j REDIRECT --to-ports 15053
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -p tcp -m tcp --dport 53 -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15053
-A ISTIO_OUTPUT -p tcp -m mark --mark 0x111/0xfff -j ACCEPT
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -j ACCEPT
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -p tcp -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15001
COMMIT
*raw
:ISTIO_PRERT - [0:0]
:ISTIO_OUTPUT - [0:0]
-A PREROUTING -j ISTIO_PRERT
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_OUTPUT -p udp -m mark --mark 0x539/0xfff -m udp --dport 53 -j CT --zone 1
-A ISTIO_PRERT -p udp -m mark ! --mark 0x539/0xfff -m udp --sport 53 -j CT --zone 1
COMMIT
`

// withoutRules undoes rules.
const withoutRules = `*mangle
-D PREROUTING -j ISTIO_PRERT
-D OUTPUT -j ISTIO_OUTPUT
-F ISTIO_PRERT
-F ISTIO_OUTPUT
-X ISTIO_PRERT
-X ISTIO_OUTPUT
COMMIT
`

// redirect installs the rules in a network namespace, once.
func redirect(netns string) error {
	name := filepath.Base(netns)
	return fabric.Do(name, func() error {
		if fabric.Run("", "iptables", "-t", "nat", "-n", "-L", "ISTIO_OUTPUT") == nil {
			return nil
		}
		if err := fabric.Run(strings.ReplaceAll(rules, "PROBE", fabric.ProbeSource), "iptables-restore", "--noflush", "-w"); err != nil {
			return err
		}
		if err := fabric.Run("", "ip", "rule", "add", "fwmark", "0x111/0xfff", "pref", "32764", "lookup", "100"); err != nil {
			return err
		}
		return fabric.Run("", "ip", "route", "replace", "local", "0.0.0.0/0", "dev", "lo", "table", "100")
	})
}

// restore removes what redirect did.
func restore(netns string) error {
	name := filepath.Base(netns)
	return fabric.Do(name, func() error {
		undo := withoutRules + strings.Replace(withoutRules, "*mangle", "*nat", 1) + strings.Replace(withoutRules, "*mangle", "*raw", 1)
		if err := fabric.Run(undo, "iptables-restore", "--noflush", "-w"); err != nil {
			return err
		}
		_ = fabric.Run("", "ip", "rule", "del", "pref", "32764")
		_ = fabric.Run("", "ip", "route", "flush", "table", "100")
		return nil
	})
}
