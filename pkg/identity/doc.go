// Package identity holds who a node is: the cluster's certificate authority, the node's certificate, the gossip key, the TLS
// configurations made of them, and the one-time tokens by which another node joins.
//
// All cryptography is the standard library's: ECDSA P-256, SHA-256, TLS 1.3. A peer is who its certificate says: a URI
// holdfast://<cluster uuid>/<node name>, signed by this cluster's CA. Addresses and host names play no part, and a certificate
// alone opens nothing: the caller's membership function is asked at each handshake.
//
// Every member holds the CA's key, so that any of them can admit a new node while others are down. A root user of one member
// can therefore name itself as any node; the package does not protect members from each other. Certificates do not run out
// (a cluster must not stop because ten years have passed or a clock is wrong): a node is shut out by removing it from the
// membership, and its certificate stays void when a node of the same name is added later: each carries a number (Number), and
// the membership knows the lowest that is good for each name.
//
// A node renews the certificate that it shows, with a new key, by itself (Renew). What is sealed for it on the repository volume, and
// what it signs there, stays with the key it joined with (Card): for a new one of that, a node joins anew.
//
// Files are written to a new directory which is then renamed, so that an identity is there wholly or not at all.
package identity
