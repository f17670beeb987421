package main

// What is said of each probe: its flags, as bind reads them, and its outcomes,
// each with the exit code it ends with: 0 good, 1 measured and not good, 3
// proves nothing. --help prints all of it as it is.
const (
	probeList = `  pppoe      dial a PPPoE session and end it again; discovery only while the gateway is online
  dhcp       who would give addresses: DHCPv4, DHCPv6, routers; takes none
  dns        what each resolver answers: silence, failures, lies
  ping       loss, round-trip time and jitter
  mtu        the largest packet that passes, and whether larger ones vanish
  http       what comes instead of a page: a portal, a redirect, silence
  multicast  join a group, measure its stream, leave it
  sip        ask a SIP server, or try an account
  ntp        what a time server says; sets no clock
  tcp        whether a port can be reached, and speaks HTTP
  acs        whether the management server (TR-069) can be reached
  cable      what a LAN port negotiated, its errors, the pairs of its cable
`
	probeCodes = "\nExit codes: 0 good, 1 measured and not good, 2 bad input or usage, 3 not measured, or proves nothing\n"

	probeFlags = `  --config FILE           configuration; need not be there (/etc/config/ontagent)
  --json                  one line of JSON
`

	pppoeFlags = `  --interface NAME        port to probe on (wan.device)
  --vlan 0..4094          VLAN whose tag is put into the frames (wan.vlan, or 0: none)
  --priority 0..7         of the tag (0)
  --user NAME             name of the account; without one, discovery only
  --password-file FILE    its password, one line; - is standard input
  --discovery             send PADIs only, take no offer
  --service NAME          service to ask for (any)
  --ac NAME               access concentrator to take (the first that answers)
  --max-payload 1493..9000PPP-Max-Payload to ask for (none)
  --mru 128..1492         MRU to ask for (1492)
  --ipv6                  negotiate IPv6 too
  --attempts 1..2         authentications; the second only if the first got no answer (1)
  --echoes 1..1000        LCP echoes once up (3)
  --echo-interval SECONDS between them (0.2)
  --timeout SECONDS       bound of all (60 for each attempt)
  --force                 dial also while the gateway is online: may end the customer's session
`
	pppoeOutcomes = `  0 ok                came up, got an address, was closed again
  0 offered           an access concentrator made an offer; it was dropped
  1 no_pado           nobody answered three PADIs
  1 pado_error        all answers to the PADI carried an error
  1 no_match          offers, but none of the AC or service asked for
  1 no_pads           the access concentrator made an offer, then opened no session
  1 pads_error        the access concentrator refused the session
  1 lcp_no_answer     the session was opened, the peer is silent
  1 lcp_rejected      the peer refused LCP
  1 lcp_no_agreement  no options of LCP were agreed on
  1 auth_unsupported  the peer insists on another authentication than PAP and CHAP-MD5
  1 auth_rejected     name or password, or the account, was refused
  1 auth_no_answer    no word on the authentication
  1 ipcp_no_answer    authenticated, then the peer never answered IPCP
  1 ipcp_failed       the peer refused IPCP
  1 no_address        the peer assigns no address
  1 terminated        the peer ended the session
  1 echo_lost         came up, then left the last echoes unanswered
  1 loop              our own frames came back, and nobody else's
`

	dhcpFlags = `  --interface NAME        port to probe on (wan.device)
  --vlan 0..4094          VLAN whose tag is put into the frames (wan.vlan, or 0: none)
  --priority 0..7         of the tag (0)
  --v4                    ask for IPv4; so does none of the next three
  --v6                    ask DHCPv6 for an address
  --prefix                ask DHCPv6 for a prefix too
  --routers               ask for routers of IPv6
  --mac MAC               who asks (the interface)
  --vendor-class TEXT     option 60; of DHCPv6, option 16 (none)
  --tries 1..10           requests (3)
  --wait SECONDS          for an answer to the first of them (1)
  --force                 send DISCOVER also while the line is in use: some access routers end a session for it
`
	dhcpOutcomes = `  0 offered       what was asked for is offered; a router is there
  0 informed      a server answered what a host with an address may ask
  1 silent        nobody answered
  1 nak           a server said no, none offered anything
  1 no_addresses  servers answered, and have neither address nor prefix
  1 no_prefix     servers have an address, but not the prefix asked for
  1 malformed     all answers were damaged
  1 partial       some of what was asked is offered, some is not
`

	dnsFlags = `  --resolver ADDRESS,…    resolvers to ask, with a port or without (wan.resolver, or the system's)
  --name NAME,…           names that exist (wan.dns_name)
  --interface NAME        interface to ask through (as the routes say)
  --timeout SECONDS       of one question (1.5)
  --attempts 1..10        for each question (2)
`
	dnsOutcomes = `  0 ok                 every name has an address, nothing is invented
  1 degraded           one resolver at least is ok, another is not
  1 nxdomain_rewrites  names that cannot exist have an address
  1 hijacks            names lead elsewhere
  1 wrong_answer       says that there is no such name or address
  1 servfail           answers with a failure
  1 refused            refuses to answer
  1 partial            some questions are answered, others never
  1 dead               no answer at all
  1 unreachable        the port is closed, or there is no route
  1 malformed          what is sent is no answer
  3 not_asked          could not be asked, for reasons of this host
`

	pingFlags = `  --target HOST           address or name to ping (the first wan.probe_target)
  --count 1..1000         requests (5)
  --interval SECONDS      between them (0.2)
  --wait SECONDS          for replies after the last (1)
  --interface NAME        interface to ask through (as the routes say)
  --resolver ADDRESS,…    resolvers for names, with a port or without (wan.resolver, or the system's)
`
	pingOutcomes = `  0 ok        every request was answered
  1 loss      some were
  1 no_reply  none was
`

	mtuFlags = `  --target HOST           address or name of the other end (the first wan.probe_target)
  --expected 68..65535    path MTU in bytes that is good (the interface's)
  --port 1..65535         of a web server there, for a transfer by TCP (none)
  --path PATH             page to transfer: some full packets (/)
  --wait SECONDS          for a reply (1)
  --timeout SECONDS       bound of all (15)
  --interface NAME        interface to ask through (as the routes say)
  --resolver ADDRESS,…    resolvers for names, with a port or without (wan.resolver, or the system's)
`
	mtuOutcomes = `  0 ok              what is expected passes
  1 reduced         less passes, and a router or the interface tells so
  1 black_hole      less passes, and what is larger vanishes without a word
  1 mss_black_hole  a transfer stalls in full segments, and works in small ones
  1 no_reply        not even a small request is answered
  1 unreachable     no route, or a router says so
`

	httpFlags = `  --url URL               page to ask for, http only (wan.check_url)
  --status 100..599       status expected (204; with --marker 200)
  --marker TEXT           text that the page must hold (none)
  --redirects 0..5        redirects to follow (0)
  --timeout SECONDS       bound of all (5)
  --interface NAME        interface to ask through (as the routes say)
  --resolver ADDRESS,…    resolvers for names, with a port or without (wan.resolver, or the system's)
`
	httpOutcomes = `  0 ok            the status and text expected
  1 redirected    sent elsewhere: a portal
  1 altered       an answer, but not the server's own
  1 error_status  the server answers with an error
  1 name_failed   the host's name has no address
  1 refused       connection refused
  1 unreachable   no route, or a router says so
  1 reset         the connection was reset
  1 closed        the connection ended before the answer was whole
  1 timeout       no whole answer in time
  1 malformed     what came is no HTTP
`

	multicastFlags = `  --interface NAME        port to probe on (wan.device)
  --vlan 0..4094          VLAN whose tag is put into the frames (0: none)
  --group ADDRESS         group to join (iptv.group)
  --source ADDRESS        sender, for source-specific multicast (iptv.source, or any)
  --port 1..65535         UDP port of the stream (iptv.port)
  --version 2..3          of IGMP; for MLD one more than its own (3, or the querier's)
  --mode kernel|frame     who joins (the kernel where there is an address, else the probe)
  --local ADDRESS         sender of the probe's reports (the interface's)
  --wait SECONDS          for the first packet (3)
  --listen SECONDS        to the stream (3)
  --leave-wait SECONDS    for the end of the stream (4)
`
	multicastOutcomes = `  0 streaming     the stream came, and did not stall
  1 intermittent  the stream came, and stopped
  1 no_stream     it did not come, although there is a querier
  1 no_querier    it did not come, and nobody was heard to ask for members
`

	sipFlags = `  --server HOST           address or name, with a port or without (voice.registrar)
  --domain NAME           of the account (voice.domain, or the server)
  --method options|fetch|register
                          options: is it there; fetch: try the account, change nothing;
                          register: a contact for a minute, which may throw out the customer's phone (options)
  --user NAME             name of the account
  --auth-user NAME        name to authenticate by (--user)
  --password-file FILE    its password, one line; - is standard input
  --transport udp|tcp     (udp)
  --source ADDRESS        to send from (the route's)
  --wait SECONDS          for the answer to each request (8)
  --interface NAME        interface to ask through (as the routes say)
  --resolver ADDRESS,…    resolvers for names, with a port or without (wan.resolver, or the system's)
`
	sipOutcomes = `  0 ok            answered with success
  0 registered    took the contact
  1 rejected      refused: see code and reason
  3 challenged    is there, and asks for credentials; none were given
  1 unauthorized  refused the credentials
  3 unsupported   asks for an authentication that this probe doesn't know
  1 redirected    sends elsewhere
  1 server_error  the server failed
  1 no_answer     nothing, or nothing final
  1 unreachable   the network said so, or the connection was refused
  1 malformed     only what is no answer
`

	ntpFlags = `  --server HOST           address or name, with a port or without
  --tries 1..10           questions (3)
  --wait SECONDS          for the answer to each (1)
  --source ADDRESS        to ask from (the route's)
  --interface NAME        interface to ask through (as the routes say)
  --resolver ADDRESS,…    resolvers for names, with a port or without (wan.resolver, or the system's)
`
	ntpOutcomes = `  0 ok              told the time
  1 silent          no answer
  1 unsynchronised  says itself that it doesn't know the time
  1 kod             does not want to be asked: see kiss_code
  1 malformed       what came could not be an answer
  1 unreachable     the network said so: see reason
`

	tcpFlags = `  --host HOST             address or name
  --port 1..65535         port
  --http                  ask for a page by HTTP and read the status line
  --path PATH             the page (/)
  --timeout SECONDS       for a connection to each address (5)
  --answer SECONDS        for the answer to HTTP (5)
  --source ADDRESS        to connect from (the route's)
  --interface NAME        interface to ask through (as the routes say)
  --resolver ADDRESS,…    resolvers for names, with a port or without (wan.resolver, or the system's)
`
	tcpOutcomes = `  0 open         connected, and with HTTP answered
  1 refused      the host answered that nothing listens
  1 no_answer    nothing came back
  1 unreachable  the network said that there is no way
  1 reset        connected, then cut off
  1 closed       connected, and closed without an answer to HTTP
  1 mute         connected, and no whole answer to HTTP in time
  1 not_http     something else than HTTP answered
  1 unresolved   the name has no address
`

	acsFlags = `  --url URL               of the server; one of https is only connected to (management.acs)
  --timeout SECONDS       for a connection to each address (5)
  --answer SECONDS        for the answer to HTTP (5)
  --source ADDRESS        to connect from (the route's)
  --interface NAME        interface to ask through (as the routes say)
  --resolver ADDRESS,…    resolvers for names, with a port or without (wan.resolver, or the system's)
`

	cableFlags = `  --interface NAME        LAN port (wan.lan_port)
  --watch SECONDS         how long errors and flaps are counted (2)
  --disturb               test the pairs too: takes the link down for seconds; not verified on hardware
`
	cableOutcomes = `  0 ok           as good as both ends offer, no errors
  1 short        within a pair or between pairs
  1 open         a pair ends before it should
  1 mismatch     of impedance: damage, or a cable of another kind
  1 unsteady     the link came, went or changed while it was watched
  1 no_link      nobody at the other end
  1 half_duplex  half duplex was negotiated
  1 crc_errors   checksum errors while it was watched
  1 downgraded   both ends offered more than they got: a bad pair, or four wires
  3 unsupported  the driver does not say enough
`
)
