// Package peer carries what nodes of one cluster say to each other: one TLS 1.3 listener per address, shared by four kinds of
// traffic that the handshake (ALPN) tells apart.
//
//	holdfast-raft/1   streams for the replicated log, handed out as a net.Listener
//	holdfast-peer/1   framed calls (Handle, Call), multiplexed over one lasting connection per direction and pair of nodes
//	h2, http/1.1      the API between nodes, handed out as a net.Listener
//	holdfast-join/1   one request of a node that has no certificate yet; rate limited, small, short
//
// From a cluster's second epoch on the first two carry its number in their names, so that members of two epochs have no connection;
// holdfast-epoch/1 tells them so (see epoch.go).
//
// All but the last need the certificate of a present member, and a member's connections are closed when it is removed (see
// CheckMembers). A frame or a connection proves who sent it, nothing more: that a node is heard is a hint for the detector, and
// that it is not heard proves nothing.
//
// Calls are at most once. ErrUnreachable means that the request never left; every other failure, the context's end included,
// leaves it unknown whether the other side served it. Nothing is sent twice. There is no flow control beyond fixed bounds, and
// no order between calls.
//
// # Noticing a dead path
//
// TCP forgives silence for minutes. Here a connection is given up when the kernel saw no acknowledgement for a second
// (TCP_USER_TIMEOUT, Linux), or when calls wait and nothing at all came back for StallTimeout, although the other side's
// reader answers pings whatever its handlers do. Long before that, after MoveAfter, another address of the node is tried, and the
// link moves there when it answers and the old connection is silent still. A link that was used lately is dialled again at once and then at least every
// half second, each time by a new connection attempt, because the kernel's own repetitions of a lost SYN come ever later.
package peer
