//! Which subjects a connection may use, docs/spec/02 §3. Lists are in the order of that section.

use choria_token::{ClientClaims, ServerClaims, private_network_id, private_network_id_sha256};

/// Subjects a connection may use: deny wins over allow, an allow list makes all else denied, no list allows everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Permissions {
    /// Subjects to publish to.
    pub publish: Rules,
    /// Subjects to subscribe to.
    pub subscribe: Rules,
}

/// One direction of [`Permissions`].
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Rules {
    /// What is allowed; `None` allows what is not denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<String>>,
    /// What is denied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
}

impl Rules {
    fn allow(subjects: Vec<String>) -> Rules {
        // Engines differ in how they read an empty allow list; a denial of everything has one reading.
        if subjects.is_empty() {
            return Rules::nothing();
        }
        Rules { allow: Some(subjects), deny: Vec::new() }
    }

    fn nothing() -> Rules {
        Rules { allow: None, deny: vec![">".into()] }
    }
}

/// What streams users may call, list S of docs/spec/02 §3.2.
const STREAMS_USER: &[&str] = &[
    "$JS.API.INFO",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.LIST",
    "$JS.API.STREAM.INFO.*",
    "$JS.API.STREAM.MSG.GET.*",
    "$JS.API.STREAM.MSG.DELETE.*",
    "$JS.API.DIRECT.GET.*",
    "$JS.API.DIRECT.GET.*.>",
    "$JS.API.CONSUMER.CREATE.*",
    "$JS.API.CONSUMER.CREATE.*.>",
    "$JS.API.CONSUMER.DURABLE.CREATE.*.*",
    "$JS.API.CONSUMER.DELETE.*.*",
    "$JS.API.CONSUMER.NAMES.*",
    "$JS.API.CONSUMER.LIST.*",
    "$JS.API.CONSUMER.INFO.*.*",
    "$JS.API.CONSUMER.MSG.NEXT.*.*",
    "$JS.ACK.>",
    "$JS.FC.>",
    "$KV.>",
    "$O.>",
];

/// What servers may call below the streams API prefix, docs/spec/02 §3.1.
const STREAMS_SERVER: &[&str] = &[
    "STREAM.INFO.*",
    "STREAM.MSG.GET.*",
    "STREAM.MSG.DELETE.*",
    "DIRECT.GET.*",
    "DIRECT.GET.*.>",
    "CONSUMER.CREATE.*",
    "CONSUMER.CREATE.*.>",
    "CONSUMER.DURABLE.CREATE.*.*",
    "CONSUMER.INFO.*.*",
    "CONSUMER.MSG.NEXT.*.*",
];

/// Everything.
pub fn unlimited() -> Permissions {
    Permissions::default()
}

/// Connected, but mute.
pub fn deny_all() -> Permissions {
    Permissions { publish: Rules::nothing(), subscribe: Rules::nothing() }
}

/// A node with a server token, docs/spec/02 §3.1. One without collectives is mute.
pub fn server(claims: &ServerClaims) -> Permissions {
    if claims.collectives.is_empty() {
        return deny_all();
    }
    let identity = &claims.identity;
    let may = &claims.permissions;
    let hashes = [private_network_id(identity), private_network_id_sha256(identity)];
    let mut publish = texts(&["choria.lifecycle.>", "choria.machine.transition", "choria.machine.watcher.>"]);
    let mut subscribe = Vec::new();
    publish.extend(claims.pub_subjects.iter().cloned());
    for c in &claims.collectives {
        publish.push(format!("{c}.reply.>"));
        publish.push(format!("{c}.broadcast.agent.registration"));
        publish.push(format!("choria.federation.{c}.collective"));
        subscribe.push(format!("{c}.broadcast.agent.>"));
        subscribe.push(format!("{c}.node.{identity}"));
        subscribe.extend(hashes.iter().map(|h| format!("{c}.reply.{h}.>")));
        if may.service_host {
            subscribe.push(format!("{c}.broadcast.service.>"));
        }
        if may.submission {
            publish.push(format!("{c}.submission.in.>"));
        }
        if may.governor && may.streams {
            publish.push(format!("{c}.governor.*"));
        }
    }
    if may.streams {
        let prefix = if claims.org == "choria" { "$JS.API" } else { "choria.streams" };
        publish.extend(STREAMS_SERVER.iter().map(|s| format!("{prefix}.{s}")));
        publish.extend(texts(&["$JS.ACK.>", "$JS.FC.>"]));
        subscribe.push(format!("{}.republish.>", claims.org));
    }
    Permissions { publish: Rules::allow(publish), subscribe: Rules::allow(subscribe) }
}

/// A client with a client token in account `choria`, docs/spec/02 §3.2.
pub fn client(claims: &ClientClaims) -> Permissions {
    let may = &claims.permissions;
    if may.org_admin {
        // Events of the engine are only credible while nobody else can publish them (docs/spec/10 E7).
        let events = texts(&["$JS.EVENT.>", "$SYS.ACCOUNT.>", "$SYS.SERVER.>"]);
        return Permissions {
            publish: Rules { allow: Some(texts(&[">"])), deny: events },
            subscribe: Rules::allow(texts(&[">"])),
        };
    }
    let caller = &claims.caller_id;
    let mut publish = texts(&["$SYS.REQ.USER.INFO"]);
    let mut subscribe = vec![
        format!("*.reply.{}.>", private_network_id(caller)),
        format!("*.reply.{}.>", private_network_id_sha256(caller)),
    ];
    publish.extend(claims.pub_subjects.iter().cloned());
    subscribe.extend(claims.sub_subjects.iter().cloned());
    if may.streams_admin {
        publish.extend(texts(&["$JS.>"]));
        subscribe.extend(texts(&["$JS.EVENT.>"]));
    }
    if may.streams_user {
        publish.extend(texts(STREAMS_USER));
        subscribe.push(format!("{}.republish.>", claims.org));
    }
    if may.events_viewer {
        subscribe.extend(texts(&[
            "choria.lifecycle.event.>",
            "choria.machine.watcher.>",
            "choria.machine.transition",
        ]));
    }
    if may.election_user {
        publish.extend(texts(&[
            "$JS.API.STREAM.INFO.KV_CHORIA_LEADER_ELECTION",
            "$KV.CHORIA_LEADER_ELECTION.>",
        ]));
    }
    if may.governor && (may.streams_user || may.streams_admin) {
        publish.extend(texts(&["*.governor.*", "choria.lifecycle.event.governor.>"]));
    }
    if may.fleet_management || may.signed_fleet_management {
        publish.extend(texts(&[
            "*.broadcast.agent.>",
            "*.broadcast.service.>",
            "*.node.>",
            "choria.federation.*.federation",
        ]));
    }
    Permissions { publish: Rules::allow(publish), subscribe: Rules::allow(subscribe) }
}

/// A node with a certificate and no token where an allow list of clients is set, docs/spec/02 §3.3.
pub fn default_server() -> Permissions {
    Permissions {
        publish: Rules {
            allow: Some(texts(&[">"])),
            deny: texts(&[
                "*.broadcast.agent.>",
                "*.broadcast.service.>",
                "*.node.>",
                "choria.federation.*.federation",
            ]),
        },
        subscribe: Rules {
            allow: None,
            deny: texts(&["*.reply.>", "choria.federation.>", "choria.lifecycle.>"]),
        },
    }
}

/// A plain NATS tool with a verified certificate and no token, docs/spec/02 §3.4.
pub fn pub_sub() -> Permissions {
    let rules = Rules {
        allow: Some(texts(&[">"])),
        deny: texts(&[
            "*.broadcast.>",
            "*.node.>",
            "*.reply.>",
            "choria.federation.>",
            "choria.lifecycle.>",
            "choria.machine.>",
        ]),
    };
    Permissions { publish: rules.clone(), subscribe: rules }
}

/// The node subject of a node that waits to be provisioned, docs/spec/10 V1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeSubject<'a> {
    /// Its own, by the name of its connection.
    Named(&'a str),
    /// None: the connection's name is no identity.
    Nothing,
    /// Those of all waiting nodes, as older brokers grant. It then reads what is meant for others.
    Any,
}

/// A node that waits to be provisioned, in account `provisioning`, docs/spec/02 §3.5.
pub fn provisioning_node(node: NodeSubject<'_>) -> Permissions {
    let mut subscribe = match node {
        NodeSubject::Named(name) => vec![format!("provisioning.node.{name}")],
        NodeSubject::Nothing => Vec::new(),
        NodeSubject::Any => texts(&["provisioning.node.>"]),
    };
    subscribe.extend(texts(&[
        "provisioning.broadcast.agent.discovery",
        "provisioning.broadcast.agent.rpcutil",
        "provisioning.broadcast.agent.choria_util",
        "provisioning.broadcast.agent.choria_provision",
    ]));
    Permissions {
        publish: Rules::allow(texts(&[
            "choria.lifecycle.>",
            "provisioning.reply.>",
            "provisioning.registration.>",
        ])),
        subscribe: Rules::allow(subscribe),
    }
}

fn texts(subjects: &[&str]) -> Vec<String> {
    subjects.iter().map(|s| (*s).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use choria_token::claims::{ClientPermissions, ServerPermissions};

    const MD5: &str = "3f7c3a791b0eb10da51dca4cdedb9418";
    const SHA: &str = "d20fc1727ae10ccda51352aef09b2ffcbacb1a8a29236eac3eb7e1f66bfd8c57";

    fn ginkgo(permissions: ServerPermissions) -> ServerClaims {
        ServerClaims {
            identity: "ginkgo.example.net".into(),
            collectives: texts(&["c1", "c2"]),
            org: "choria".into(),
            permissions,
            ..ServerClaims::default()
        }
    }

    fn up_ginkgo(permissions: ClientPermissions) -> ClientClaims {
        ClientClaims {
            caller_id: "up=ginkgo".into(),
            org: "choria".into(),
            permissions,
            ..ClientClaims::default()
        }
    }

    #[test]
    fn server_without_flags_in_the_order_of_the_specification() {
        let set = server(&ginkgo(ServerPermissions::default()));
        let per = |c: &str| {
            (
                vec![
                    format!("{c}.reply.>"),
                    format!("{c}.broadcast.agent.registration"),
                    format!("choria.federation.{c}.collective"),
                ],
                vec![
                    format!("{c}.broadcast.agent.>"),
                    format!("{c}.node.ginkgo.example.net"),
                    format!("{c}.reply.{MD5}.>"),
                    format!("{c}.reply.{SHA}.>"),
                ],
            )
        };
        let mut publish =
            texts(&["choria.lifecycle.>", "choria.machine.transition", "choria.machine.watcher.>"]);
        let mut subscribe = Vec::new();
        for c in ["c1", "c2"] {
            let (p, s) = per(c);
            publish.extend(p);
            subscribe.extend(s);
        }
        assert_eq!(set.publish, Rules { allow: Some(publish), deny: vec![] });
        assert_eq!(set.subscribe, Rules { allow: Some(subscribe), deny: vec![] });
    }

    #[test]
    fn server_with_every_flag() {
        let all = ServerPermissions { submission: true, streams: true, governor: true, service_host: true };
        let set = server(&ginkgo(all.clone()));
        let publish = set.publish.allow.unwrap();
        for subject in ["c1.submission.in.>", "c2.governor.*", "$JS.API.STREAM.INFO.*", "$JS.ACK.>"] {
            assert!(publish.iter().any(|s| s == subject), "{subject}");
        }
        assert!(!publish.iter().any(|s| s.starts_with("$KV")), "servers do not write buckets");
        let subscribe = set.subscribe.allow.unwrap();
        assert!(subscribe.contains(&"c1.broadcast.service.>".to_owned()));
        assert!(subscribe.contains(&"choria.republish.>".to_owned()));

        let other = server(&ServerClaims { org: "acme".into(), ..ginkgo(all) });
        assert!(other.publish.allow.unwrap().contains(&"choria.streams.CONSUMER.INFO.*.*".to_owned()));
    }

    #[test]
    fn a_governor_needs_streams() {
        let set = server(&ginkgo(ServerPermissions { governor: true, ..ServerPermissions::default() }));
        assert!(!set.publish.allow.unwrap().contains(&"c1.governor.*".to_owned()));
        let set = client(&up_ginkgo(ClientPermissions { governor: true, ..ClientPermissions::default() }));
        assert!(!set.publish.allow.unwrap().contains(&"*.governor.*".to_owned()));
    }

    #[test]
    fn a_server_without_collectives_is_mute() {
        let set = server(&ServerClaims { collectives: vec![], ..ginkgo(ServerPermissions::default()) });
        assert_eq!(set, deny_all());
    }

    #[test]
    fn client_without_flags() {
        let set = client(&up_ginkgo(ClientPermissions::default()));
        assert_eq!(set.publish.allow.unwrap(), texts(&["$SYS.REQ.USER.INFO"]));
        assert_eq!(
            set.subscribe.allow.unwrap(),
            texts(&[
                "*.reply.e33bf0376d4accbb4a8fd24b2f840b2e.>",
                "*.reply.f76b6d2a7755caf66ca1908e16dd59f01a466a1615e5273df535df56f471386d.>",
            ])
        );
    }

    #[test]
    fn each_client_flag_grants_its_row_and_no_more() {
        let none = client(&up_ginkgo(ClientPermissions::default()));
        let granted = |flags: ClientPermissions| {
            let set = client(&up_ginkgo(flags));
            let skip = |all: Option<Vec<String>>, base: &Option<Vec<String>>| {
                all.unwrap().split_off(base.as_ref().unwrap().len())
            };
            (skip(set.publish.allow, &none.publish.allow), skip(set.subscribe.allow, &none.subscribe.allow))
        };
        let off = ClientPermissions::default;
        assert_eq!(
            granted(ClientPermissions { streams_admin: true, ..off() }),
            (texts(&["$JS.>"]), texts(&["$JS.EVENT.>"]))
        );
        assert_eq!(
            granted(ClientPermissions { streams_user: true, ..off() }),
            (texts(STREAMS_USER), texts(&["choria.republish.>"]))
        );
        assert_eq!(
            granted(ClientPermissions { events_viewer: true, ..off() }),
            (
                vec![],
                texts(&["choria.lifecycle.event.>", "choria.machine.watcher.>", "choria.machine.transition"])
            )
        );
        assert_eq!(
            granted(ClientPermissions { election_user: true, ..off() }),
            (
                texts(&["$JS.API.STREAM.INFO.KV_CHORIA_LEADER_ELECTION", "$KV.CHORIA_LEADER_ELECTION.>"]),
                vec![]
            )
        );
        let fleet = texts(&[
            "*.broadcast.agent.>",
            "*.broadcast.service.>",
            "*.node.>",
            "choria.federation.*.federation",
        ]);
        assert_eq!(granted(ClientPermissions { fleet_management: true, ..off() }), (fleet.clone(), vec![]));
        assert_eq!(granted(ClientPermissions { signed_fleet_management: true, ..off() }), (fleet, vec![]));
        let mute = ClientPermissions {
            system_user: true,
            provisioner: true,
            authentication_delegator: true,
            service: true,
            ..off()
        };
        assert_eq!(granted(mute), (vec![], vec![]));
    }

    #[test]
    fn org_admin_may_everything_but_forge_the_engines_events() {
        let set = client(&up_ginkgo(ClientPermissions { org_admin: true, ..ClientPermissions::default() }));
        assert_eq!(set.subscribe, Rules { allow: Some(texts(&[">"])), deny: vec![] });
        assert_eq!(set.publish.allow.unwrap(), texts(&[">"]));
        assert!(set.publish.deny.contains(&"$JS.EVENT.>".to_owned()));
    }

    #[test]
    fn a_waiting_node_hears_only_what_is_meant_for_it() {
        let subscribe = |node| provisioning_node(node).subscribe.allow.unwrap();
        assert!(
            subscribe(NodeSubject::Named("n1.example.net"))
                .contains(&"provisioning.node.n1.example.net".to_owned())
        );
        assert!(!subscribe(NodeSubject::Nothing).iter().any(|s| s.contains(".node.")));
        assert!(subscribe(NodeSubject::Any).contains(&"provisioning.node.>".to_owned()));
    }
}
