//! What a build was made from, as far as it can be kept: with it a step's state can be brought about again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cbs_exec::launch::Resources;
use cbs_exec::{Pins, pin_name};
use cbs_frontends::bake::DeviceGrant;
use cbs_solver::llb::{Edge, VertexDigest};
use cbs_solver::{Graph, Request, Vertex, pb, read_definition, write_definition};
use serde::{Deserialize, Serialize};

use crate::sources::Sources;

/// The largest definition that is read back.
const MAX_DEFINITION: u64 = 256 << 20;

/// The definitions of a target, where its folders are, and what its steps were allowed. Secrets and agents are not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BuildInputs {
    /// One for each platform: protobuf, zstd, base64.
    definitions: Vec<String>,
    /// Folders behind `local://NAME`.
    locals: BTreeMap<String, PathBuf>,
    /// Layouts behind `oci-layout://…`.
    layouts: BTreeMap<String, PathBuf>,
    /// Whether steps were allowed the host's network.
    allow_host_network: bool,
    /// Whether steps were allowed everything.
    allow_insecure: bool,
    /// Which devices steps were allowed.
    #[serde(default)]
    devices: KeptDevices,
    /// What mutable sources were.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pins: BTreeMap<String, String>,
    /// Limits of steps, by their vertices.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    limits: BTreeMap<String, Resources>,
}

/// Devices that steps were allowed, and where they are described.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct KeptDevices {
    all: bool,
    names: BTreeSet<String>,
    folders: Vec<PathBuf>,
}

impl BuildInputs {
    /// Keeps these, and what is known of their vertices.
    ///
    /// # Errors
    /// When a definition cannot be compressed.
    pub(crate) fn new<'d>(
        definitions: impl IntoIterator<Item = &'d pb::Definition>,
        vertices: impl IntoIterator<Item = &'d Arc<Vertex>>,
        sources: &Sources,
    ) -> anyhow::Result<Self> {
        let pack = |definition: &pb::Definition| {
            let mut bytes = Vec::new();
            write_definition(definition, &mut bytes)?;
            let packed = zstd::encode_all(bytes.as_slice(), 3)?;
            Ok(STANDARD.encode(packed))
        };
        let limit_of = sources.sandbox.step_resources.get();
        let (mut pins, mut limits) = (BTreeMap::new(), BTreeMap::new());
        for vertex in vertices {
            if let Some(limit) = limit_of.and_then(|limits| limits.get(&vertex.digest)) {
                limits.insert(vertex.digest.to_string(), limit.clone());
            }
            if let pb::op::Op::Source(source) = &vertex.op
                && let Some(name) = pin_name(source)
                && let Some(pin) = sources.pins.known(&name)
            {
                pins.insert(name, pin);
            }
        }
        let absolute = |folder: &PathBuf| std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
        let (all, names) = match &sources.devices {
            DeviceGrant::All => (true, BTreeSet::new()),
            DeviceGrant::Named(names) => (false, names.clone()),
        };
        Ok(Self {
            definitions: definitions.into_iter().map(pack).collect::<anyhow::Result<_>>()?,
            devices: KeptDevices {
                all,
                names,
                folders: sources.device_folders.iter().map(absolute).collect(),
            },
            pins,
            limits,
            locals: sources.locals.clone(),
            layouts: sources.layouts.clone(),
            allow_host_network: sources.sandbox.allow_host_network,
            allow_insecure: sources.sandbox.allow_insecure,
        })
    }

    /// Whether there is anything to go by.
    pub(crate) fn is_empty(&self) -> bool {
        self.definitions.is_empty()
    }

    /// The definitions.
    ///
    /// # Errors
    /// When they are damaged.
    pub(crate) fn definitions(&self) -> anyhow::Result<Vec<pb::Definition>> {
        let unpack = |text: &String| -> anyhow::Result<pb::Definition> {
            let packed = STANDARD.decode(text)?;
            let mut bytes = Vec::new();
            let decoder = zstd::stream::read::Decoder::new(packed.as_slice())?;
            decoder.take(MAX_DEFINITION).read_to_end(&mut bytes)?;
            Ok(read_definition(&bytes)?)
        };
        let unpacked = self.definitions.iter().map(unpack).collect::<anyhow::Result<_>>();
        unpacked.context("what is kept of the definition is damaged; build it again")
    }

    /// Adds what it was made from to `sources`.
    pub(crate) fn add_to(&self, sources: &mut Sources) {
        sources.locals.clone_from(&self.locals);
        sources.layouts.clone_from(&self.layouts);
        sources.sandbox.allow_host_network |= self.allow_host_network;
        sources.sandbox.allow_insecure |= self.allow_insecure;
        sources.grant_devices(&match self.devices.all {
            true => DeviceGrant::All,
            false => DeviceGrant::Named(self.devices.names.clone()),
        });
        sources.device_folders.clone_from(&self.devices.folders);
        sources.pins = Arc::new(Pins::preferring(self.pins.clone()));
        let limits = self.limits.iter();
        let limits = limits.filter_map(|(vertex, limit)| Some((vertex.parse().ok()?, limit.clone())));
        sources.sandbox.step_resources = Arc::new(OnceLock::from(limits.collect::<HashMap<_, _>>()));
    }
}

/// The vertices of some definitions, and definitions of the single results below them.
#[derive(Debug)]
pub(crate) struct Steps {
    definitions: Vec<pb::Definition>,
    graph: Graph,
}

impl Steps {
    /// Reads definitions.
    ///
    /// # Errors
    /// When they make no graph.
    pub(crate) fn of(definitions: Vec<pb::Definition>) -> anyhow::Result<Self> {
        let requests: Vec<Request> = definitions
            .iter()
            .enumerate()
            .map(|(number, definition)| Request {
                name: number.to_string(),
                definition: definition.clone(),
            })
            .collect();
        let graph = Graph::build(&requests)?;
        Ok(Self { definitions, graph })
    }

    /// The steps that run something, inputs before their users.
    pub(crate) fn execs(&self) -> impl DoubleEndedIterator<Item = &Arc<Vertex>> {
        let vertices = self.graph.order().iter().map(|&id| self.graph.vertex(id));
        vertices.filter(|vertex| matches!(vertex.op, pb::op::Op::Exec(_)))
    }

    /// What gives the inputs of a vertex, in the order the op counts them.
    ///
    /// # Errors
    /// When no definition has the vertex.
    pub(crate) fn inputs_of(&self, vertex: &Vertex) -> anyhow::Result<Vec<Request>> {
        let edges = vertex.inputs.iter().map(|edge| Edge {
            vertex: self.graph.vertex(edge.vertex).digest,
            output: i64::try_from(edge.output).unwrap_or(i64::MAX),
        });
        edges.map(|edge| self.request(edge)).collect()
    }

    /// What gives one output of a vertex.
    ///
    /// # Errors
    /// When no definition has the vertex.
    pub(crate) fn request(&self, edge: Edge) -> anyhow::Result<Request> {
        let has = |definition: &&pb::Definition| {
            let mut ops = definition.def.iter().rev().skip(1);
            ops.any(|op| VertexDigest::of(op) == edge.vertex)
        };
        let Some(definition) = self.definitions.iter().find(has) else {
            bail!("no definition has the vertex {}", edge.vertex);
        };
        Ok(Request {
            name: edge.vertex.to_string(),
            definition: cbs_solver::llb::with_result(definition, edge),
        })
    }
}
