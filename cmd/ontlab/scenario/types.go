package scenario

import (
	"math"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
)

// Scenario is one file: two sides of a line with a gateway between them, the
// work order, what goes wrong when, and what the visit must come to. Load fills
// every default in, so that whoever builds a lab from it decides nothing.
type Scenario struct {
	File        string    `yaml:"-"` // where it was read from, as given to Load
	Name        string    `yaml:"scenario"`
	Title       string    `yaml:"title"`
	Description string    `yaml:"description"`
	Order       Order     `yaml:"order"`
	Services    []Service `yaml:"services"`
	Gateway     Gateway   `yaml:"gateway"`
	Network     Network   `yaml:"network"`
	Timeline    []Moment  `yaml:"timeline"`
	Measure     Measure   `yaml:"measure"`
	Expect      Expect    `yaml:"expect"`
}

// Service returns the ordered service of a kind.
func (s Scenario) Service(kind string) (Service, bool) {
	for _, service := range s.Services {
		if service.Kind == kind {
			return service, true
		}
	}
	return Service{}, false
}

// The kinds of service.
const (
	Internet   = "internet"
	IPTV       = "iptv"
	Voice      = "voice"
	Management = "management"
)

// The ways of access.
const (
	PPPoE  = "pppoe"
	IPoE   = "ipoe"
	Static = "static"
	Bridge = "bridge"
)

// Order is what the work order says. Resources that are empty are not stated.
type Order struct {
	Type         string             `yaml:"type"`       // as order.Type
	Require      []acceptance.Rung  `yaml:"require"`    // the rungs that decide
	Thresholds   map[string]float64 `yaml:"thresholds"` // as acceptance.Norms names them
	Consents     []string           `yaml:"consents"`
	MaxMiB       int                `yaml:"max_mib"` // of test traffic
	SN           string             `yaml:"sn"`
	MAC          string             `yaml:"mac"`
	PONPort      string             `yaml:"pon_port"`
	SplitterPort string             `yaml:"splitter_port"`
	LANPort      string             `yaml:"lan_port"`
	Sealed       bool               `yaml:"sealed"` // it carries accounts and passwords, sealed for the gateway
	Extract      Extract            `yaml:"extract"`
}

// Service is one ordered service, and how the network serves it unless Network
// says otherwise. Fields that do not belong to its kind are zero.
type Service struct {
	Kind      string  `yaml:"kind"`
	Access    string  `yaml:"access"`
	Behind    string  `yaml:"behind"`    // of a bridged service: how the PC behind the gateway gets on, PPPoE or IPoE; "" otherwise
	VLAN      uint16  `yaml:"vlan"`      // 0: untagged
	DownMbps  float64 `yaml:"down_mbps"` // of the contract, at RateLayer
	UpMbps    float64 `yaml:"up_mbps"`
	RateLayer string  `yaml:"rate_layer"` // tcp, ip, ethernet
	Account   string  `yaml:"account"`    // in full; the order carries it masked and sealed
	Password  string  `yaml:"password"`
	IPv6      bool    `yaml:"ipv6"`    // with prefix delegation
	Address   string  `yaml:"address"` // of static access: the gateway's, CIDR; "" otherwise

	Group    string  `yaml:"group"` // of iptv: IPv4 or IPv6 multicast address
	Port     uint16  `yaml:"port"`  // of iptv the stream's, of voice the registrar's, of management the ACS's
	RateMbps float64 `yaml:"rate_mbps"`
	IGMP     int     `yaml:"igmp"` // version: 2 or 3

	User   string `yaml:"user"` // of voice, for REGISTER; its password is Password
	Domain string `yaml:"domain"`
}

// DBm is an optical power; NoLight is a dark fibre.
type DBm float64

// NoLight is the power of a dark fibre; a file says none.
func NoLight() DBm { return DBm(math.Inf(-1)) }

// Gateway is what the gateway is and how it is configured.
type Gateway struct {
	Serial             string          `yaml:"serial"` // GPON serial number; also the agent's device id
	MAC                string          `yaml:"mac"`    // of the WAN port
	Forwarding         bool            `yaml:"forwarding"`
	NAT                bool            `yaml:"nat"`
	Console            string          `yaml:"console"`
	ConsoleHabits      []string        `yaml:"console_habits"`
	RxPowerDBm         DBm             `yaml:"rx_power_dbm"`
	State              string          `yaml:"state"` // O1 to O7
	OMCI               bool            `yaml:"omci"`  // the OLT has provisioned services
	Alarms             []string        `yaml:"alarms"`
	TemperatureCelsius float64         `yaml:"temperature_celsius"`
	TxPowerDBm         DBm             `yaml:"tx_power_dbm"` // while the laser is on; NoLight: it never is
	BiasMA             float64         `yaml:"bias_ma"`      // while the laser is on
	SupplyV            float64         `yaml:"supply_v"`
	Module             Module          `yaml:"module"`
	LAN                LAN             `yaml:"lan"`
	Load               GatewayLoad     `yaml:"load"`
	Clock              string          `yaml:"clock"` // ClockSystem or ClockNone
	Internet           GatewayInternet `yaml:"internet"`
}

// Module is an optical module that the gateway reads itself, beside the ONT's
// console.
type Module struct {
	Given         bool    `yaml:"-"` // the file has one
	RxOffsetDB    float64 `yaml:"rx_offset_db"`
	RxWarnLowDBm  DBm     `yaml:"rx_warn_low_dbm"`  // NoLight: it has no such limit
	RxWarnHighDBm DBm     `yaml:"rx_warn_high_dbm"` // as above
	BiasWarnMA    float64 `yaml:"bias_warn_ma"`
	SupplyV       float64 `yaml:"supply_v"`
}

// LAN is what the gateway's LAN port says of its link.
type LAN struct {
	Given       bool   `yaml:"-"` // the file has it; else the port is a virtual cable
	SpeedMbps   int    `yaml:"speed_mbps"`
	Duplex      string `yaml:"duplex"` // DuplexFull or DuplexHalf
	PortMaxMbps int    `yaml:"port_max_mbps"`
	PeerMaxMbps int    `yaml:"peer_max_mbps"` // 0: the other end says nothing
}

// The duplex modes of a LAN.
const (
	DuplexFull = "full"
	DuplexHalf = "half"
)

// GatewayLoad is how busy the gateway is.
type GatewayLoad struct {
	Given              bool    `yaml:"-"` // the file has it; else it is the load of the machine that plays
	CPUBusyRatio       float64 `yaml:"cpu_busy_ratio"`
	MemoryUsedRatio    float64 `yaml:"memory_used_ratio"`
	TemperatureCelsius float64 `yaml:"temperature_celsius"`
}

// The clocks of a gateway.
const (
	ClockSystem = "system"
	ClockNone   = "none" // it believes none
)

// GatewayInternet is how the gateway's internet connection is configured,
// which need not be as it was ordered.
type GatewayInternet struct {
	Access      string `yaml:"access"`
	VLAN        uint16 `yaml:"vlan"` // 0: untagged
	Account     string `yaml:"account"`
	Password    string `yaml:"password"`
	Dial        string `yaml:"dial"` // DialAuto or DialNever
	Auth        string `yaml:"auth"` // any, pap, chap: what the gateway agrees to
	MTU         int    `yaml:"mtu"`  // of the connection, bytes
	ServiceName string `yaml:"service_name"`
	IPv6        bool   `yaml:"ipv6"`
}

// When the gateway brings its internet connection up.
const (
	DialAuto  = "auto"  // by itself, before the visit
	DialNever = "never" // the connection is down when the visit starts, and stays
)

// Network is the operator's side.
type Network struct {
	Accounts []Account         `yaml:"accounts"`
	AAA      AAA               `yaml:"aaa"`
	BRAS     BRAS              `yaml:"bras"`
	VLANs    map[string]uint16 `yaml:"vlans"` // by kind of service, each ordered one
	Line     Line              `yaml:"line"`
	DNS      DNS               `yaml:"dns"`
	DHCP     DHCP              `yaml:"dhcp"`
	Speed    SpeedServer       `yaml:"speed_server"`
	Pool     string            `yaml:"pool"`   // IPv4 addresses given out, CIDR
	Prefix   string            `yaml:"prefix"` // delegated by DHCPv6, as a length: "/56"
	Targets  int               `yaml:"targets"`
}

// Account is an entry in the AAA's book.
type Account struct {
	Account  string  `yaml:"account"`
	Password string  `yaml:"password"`
	State    string  `yaml:"state"`
	Reply    string  `yaml:"reply"`    // Reply-Message of a reject; AAA has the texts of wrong passwords and unknown accounts
	Sessions int     `yaml:"sessions"` // allowed at once
	InUse    int     `yaml:"in_use"`   // open elsewhere when the lab comes up
	DownMbps float64 `yaml:"down_mbps"`
	UpMbps   float64 `yaml:"up_mbps"`
	FramedIP string  `yaml:"framed_ip"` // "": from the pool
}

// AAA is what the RADIUS server says besides what accounts say themselves.
type AAA struct {
	WrongPassword  string `yaml:"wrong_password"`
	UnknownAccount string `yaml:"unknown_account"`
	SessionLimit   string `yaml:"session_limit"`
}

// BRAS is the access concentrator.
type BRAS struct {
	Auth              []string `yaml:"auth"` // pap, chap: what it asks for, in this order of preference
	ACName            string   `yaml:"ac_name"`
	ServiceName       string   `yaml:"service_name"`
	MTU               int      `yaml:"mtu"` // of sessions: 1492, or up to 1500 with PPP-Max-Payload (RFC 4638)
	PADIAnswerDelayMS int      `yaml:"padi_answer_delay_ms"`
	SecondAC          bool     `yaml:"second_ac"`
	EchoIntervalS     int      `yaml:"echo_interval_s"` // of its own LCP Echo-Requests; 0: none
	EchoFailures      int      `yaml:"echo_failures"`   // unanswered ones that end a session
}

// Line is what lies between OLT and gateway.
type Line struct {
	DownMbps       float64 `yaml:"down_mbps"` // at the ethernet layer; 0: not shaped
	UpMbps         float64 `yaml:"up_mbps"`
	DelayMS        float64 `yaml:"delay_ms"` // one way, each way
	JitterMS       float64 `yaml:"jitter_ms"`
	LossRatio      float64 `yaml:"loss_ratio"`
	DuplicateRatio float64 `yaml:"duplicate_ratio"`
	ReorderRatio   float64 `yaml:"reorder_ratio"`
	QueueMS        int     `yaml:"queue_ms"` // what the shaper's queue holds
	MTU            int     `yaml:"mtu"`      // of ethernet's payload behind the VLAN tag, bytes
}

// DNS is the operator's name service.
type DNS struct {
	Resolvers int     `yaml:"resolvers"` // that the BRAS and DHCP name
	DelayMS   float64 `yaml:"delay_ms"`
}

// DHCP is the operator's address server, of IPoE.
type DHCP struct {
	LeaseS       int     `yaml:"lease_s"`
	OfferDelayMS float64 `yaml:"offer_delay_ms"`
}

// SpeedServer is what throughput is measured by.
type SpeedServer struct {
	UplinkMbps float64 `yaml:"uplink_mbps"` // of a host of its own; 0: it is on core
	Second     bool    `yaml:"second"`      // the gateway knows of that on core as well
}

// Moment is an entry of the timeline: a fault that comes or goes.
type Moment struct {
	Line   int     `yaml:"-"`       // of the file
	AtS    float64 `yaml:"at_s"`    // since the start of the visit; of a Rung, since the ladder reached it
	Before bool    `yaml:"before"`  // holds before the gateway is started, whatever AtS is
	Rung   string  `yaml:"rung"`    // "": AtS counts from the start of the visit
	ForS   float64 `yaml:"for_s"`   // the fault goes by itself after this long; 0: it stays
	Fault  string  `yaml:"fault"`   // the one that comes; "" if Clear is set
	Clear  string  `yaml:"clear"`   // the one that goes; "all" for every one
	Params Params  `yaml:",inline"` // of Fault, defaults filled in
}

// Params are the parameters of faults. Faults says which belong to which fault;
// the others are zero.
type Params struct {
	Account        string   `yaml:"account"`
	ACName         string   `yaml:"ac_name"`
	Address        string   `yaml:"address"`
	Alarms         []string `yaml:"alarms"`
	BIPPerS        float64  `yaml:"bip_per_s"`
	BiasMA         float64  `yaml:"bias_ma"`
	BusyRatio      float64  `yaml:"busy_ratio"`
	CPUBusyRatio   float64  `yaml:"cpu_busy_ratio"`
	Code           int      `yaml:"code"`
	DelayMS        float64  `yaml:"delay_ms"`
	DelayS         float64  `yaml:"delay_s"`
	DownMbps       float64  `yaml:"down_mbps"`
	Duplex         string   `yaml:"duplex"`
	DuplicateRatio float64  `yaml:"duplicate_ratio"`
	FECPerS        float64  `yaml:"fec_uncorrected_per_s"`
	Habits         []string `yaml:"habits"`
	JitterMS       float64  `yaml:"jitter_ms"`
	KiB            int      `yaml:"kib"`
	Location       string   `yaml:"location"`
	LossRatio      float64  `yaml:"loss_ratio"`
	MemoryUsed     float64  `yaml:"memory_used_ratio"`
	MTU            int      `yaml:"mtu"`
	OMCI           bool     `yaml:"omci"`
	PeerMaxMbps    int      `yaml:"peer_max_mbps"` // 0: the other end says nothing
	PortMaxMbps    int      `yaml:"port_max_mbps"`
	QueueMS        int      `yaml:"queue_ms"`
	Reason         string   `yaml:"reason"`
	ReorderRatio   float64  `yaml:"reorder_ratio"`
	Reply          string   `yaml:"reply"`
	Resolver       int      `yaml:"resolver"` // 1 is the first; 0: all
	RxPowerDBm     DBm      `yaml:"rx_power_dbm"`
	Service        string   `yaml:"service"`
	SpeedMbps      int      `yaml:"speed_mbps"`
	State          string   `yaml:"state"`
	Tag            string   `yaml:"tag"`
	Temperature    float64  `yaml:"temperature_celsius"`
	Target         int      `yaml:"target"` // 1 is the first; 0: all
	Text           string   `yaml:"text"`
	TooLongPerS    float64  `yaml:"too_long_per_s"`
	TxPowerDBm     DBm      `yaml:"tx_power_dbm"`
	UpMbps         float64  `yaml:"up_mbps"`
	VLAN           uint16   `yaml:"vlan"`
}

// Measure bounds the measuring.
type Measure struct {
	ThroughputWindowS int     `yaml:"throughput_window_s"`
	SettleS           float64 `yaml:"settle_s"` // the gateway's connection has this long to come up before the visit starts
	LimitS            float64 `yaml:"limit_s"`  // of the whole scenario, building the lab excluded
}

// Expect is what the visit must come to. What it does not name is not compared.
type Expect struct {
	Verdict    acceptance.Verdict                     `yaml:"verdict"`
	Rungs      map[acceptance.Rung]acceptance.Verdict `yaml:"rungs"`
	FirstCause diagnosis.Code                         `yaml:"first_cause"` // "": not compared; NoCause: there must be none
	Causes     []diagnosis.Code                       `yaml:"causes"`      // each must be among the causes
	NotCauses  []diagnosis.Code                       `yaml:"not_causes"`  // none may be among them
	Events     []string                               `yaml:"events"`      // each must have come; as EventName
	WithinS    float64                                `yaml:"within_s"`    // longest duration of the visit; 0: not compared
}

// NoCause is what Expect.FirstCause says if the diagnosis must name no cause.
const NoCause diagnosis.Code = "none"
