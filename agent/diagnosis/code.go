package diagnosis

// Code names a cause. Codes travel in records and are never renamed; the
// catalogue holds their texts.
type Code string

// Side says who has to act.
type Side string

// The sides.
const (
	SideCustomer Side = "customer"
	SideDrop     Side = "drop"     // drop cable, from splitter box to socket
	SideODN      Side = "odn"      // splitters and feeder
	SideOLT      Side = "olt"      //
	SideBRAS     Side = "bras_aaa" //
	SidePlatform Side = "platform" // DNS, ITMS, order data
	SideDevice   Side = "device"   // the gateway or its agent
)
