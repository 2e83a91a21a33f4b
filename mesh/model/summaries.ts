/** What each kind is for, in a sentence or two: for `explain --schema`, the reference pages and the CRDs. */
import type { Kind } from "./resources.ts";

export const KIND_SUMMARIES: Readonly<Record<Kind, string>> = {
  MeshNetwork: "The overlay itself: its address ranges, ports and topology. One is made at the controller's first start.",
  Site: "A place: a datacenter or a cloud region. Its nodes take location, region and zone from it, and carry its LANs for the others.",
  MeshNode: "A machine of the mesh. `isthmus join` makes it; admins label, drain and delete it.",
  JoinToken: "Lets machines join a site. `isthmus create token` makes it and shows its secret once; only a hash is stored.",
  MeshRoute:
    "Static routes: destinations through an ordered list of gateways, routers on a LAN or nodes of the mesh, with health checks and failover.",
  StaticRoute: "The StaticRoute of the DigitalOcean static route operator, accepted as it is: destinations through one router.",
  EgressGateway: "Traffic to some destinations leaves the overlay at a gateway node, and moves to another within half a second when that one fails.",
  VirtualIP: "An address that survives its node: on a LAN by VRRP, or across sites over the overlay.",
  MeshCluster: "A Kubernetes cluster whose nodes belong to the mesh.",
};
