//! A model that is loaded, with all that continues texts: tokenizer, ends, chat template; and where newer parameters are.
//!
//! A folder of Hugging Face's layout is read once. Of a node or a swarm it is the newest saved state, and a newer one takes
//! its place when it is asked for ([`Engine::renew`]). States are streamed: the model is in memory once.

use crate::config::{ConfigError, NodeConfig};
use crate::disk::folder::Folder;
use crate::disk::{Disk, DiskError, StateFile};
use crate::service::{ServiceError, read_run};
use covey_proto::layout::Layout;
use covey_proto::run::Model;
use covey_round::engine::Tip;
use covey_sparseloco::state::as_le_bytes;
use covey_trainer::chat::{ChatError, ChatTemplate, Message};
use covey_trainer::generate::{Continue, Continued, EndsError, GenerateError, TextEnds, Tokenizer};
use covey_trainer::generate::{encode_prompt, generate};
use covey_trainer::hf::{self, HfError};
use covey_trainer::{BackendError, Device, LanguageModel, LoadError, open_backend};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Which model is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A folder of Hugging Face's layout.
    Model(PathBuf),
    /// The newest state of a node, by its node.toml or that file's folder; or of a swarm, by its --out folder.
    Node {
        /// The file or folder.
        path: PathBuf,
        /// Its tokenizer.json, where it is not with the data.
        tokenizer: Option<PathBuf>,
    },
}

/// Why there is no such model.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The model's folder, or a tokenizer.
    #[error(transparent)]
    Folder(#[from] HfError),
    /// Its end tokens.
    #[error(transparent)]
    Ends(#[from] EndsError),
    /// Its chat template.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// The node's node.toml.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The node's or swarm's run.toml.
    #[error(transparent)]
    Run(#[from] ServiceError),
    /// The node's folder.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The device.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The state's file.
    #[error("{what}: {error}")]
    Load {
        /// The state.
        what: String,
        /// What is wrong with it.
        error: LoadError,
    },
    /// Neither a node nor a swarm.
    #[error("{} is no node.toml, has none, and is not the --out folder of a swarm", path.display())]
    NoNode {
        /// What was named.
        path: PathBuf,
    },
    /// A node that has no state yet.
    #[error("no state of this run is saved in {}: the node writes its first once it has joined", path.display())]
    NoState {
        /// Where it would be.
        path: PathBuf,
    },
    /// Nobody says which tokenizer it is.
    #[error("{} says no data folder with a tokenizer.json in it: name the file with --tokenizer", path.display())]
    NoTokenizer {
        /// The node.toml.
        path: PathBuf,
    },
}

/// Where newer states appear.
enum States {
    Node(Disk),
    Swarm(Folder),
}

impl States {
    fn newest(&self, elements: usize) -> Result<Option<StateFile>, DiskError> {
        match self {
            States::Node(disk) => disk.open_newest_state(elements),
            States::Swarm(folder) => folder.open_newest_state(elements),
        }
    }

    fn path(&self) -> &Path {
        match self {
            States::Node(disk) => disk.root(),
            States::Swarm(folder) => folder.path(),
        }
    }
}

/// A model that continues texts.
pub struct Engine {
    model: Model,
    loaded: Box<dyn LanguageModel>,
    tokenizer: Tokenizer,
    ends: TextEnds,
    template: Option<ChatTemplate>,
    /// The folder that it came from.
    place: PathBuf,
    states: Option<States>,
    /// The saved state that is loaded; none if it came from a model's folder, or if loading failed.
    tip: Option<Tip>,
}

impl Engine {
    /// Loads the model; `template` is a chat template's file that counts before the folder's. It works on so many `threads`,
    /// or on all cores.
    ///
    /// # Errors
    /// Something is missing, damaged or does not fit together; the message names the file.
    pub fn open(source: &Source, template: Option<&Path>, threads: Option<usize>) -> Result<Engine, EngineError> {
        let threads = threads.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
        let mut engine = match source {
            Source::Model(dir) => Engine::of_folder(dir, threads)?,
            Source::Node { path, tokenizer } => Engine::of_node(path, tokenizer.as_deref(), threads)?,
        };
        if let Some(path) = template {
            engine.template = Some(ChatTemplate::read(path)?);
        }
        Ok(engine)
    }

    fn of_folder(dir: &Path, threads: usize) -> Result<Engine, EngineError> {
        let template = ChatTemplate::load(dir)?;
        let tokenizer = hf::load_tokenizer(dir)?;
        let (model, parameters) = hf::load(dir)?;
        let ends = TextEnds::load(dir, &tokenizer, model.vocabulary)?;
        let mut loaded = open_backend(&Device::Cpu { threads }, &model)?.model()?;
        let load = loaded.load(&mut as_le_bytes(&parameters));
        load.map_err(|error| EngineError::Load { what: dir.display().to_string(), error })?;
        Ok(Engine { model, loaded, tokenizer, ends, template, place: dir.to_owned(), states: None, tip: None })
    }

    fn of_node(path: &Path, tokenizer: Option<&Path>, threads: usize) -> Result<Engine, EngineError> {
        let node = if path.is_dir() { path.join("node.toml") } else { path.to_owned() };
        let swarm = Folder::at(path);
        let (run, states, own_tokenizer) = if node.is_file() {
            let config = NodeConfig::load(&node)?;
            let data = config.data.map(|data| data.join("tokenizer.json")).filter(|file| file.is_file());
            (config.run, States::Node(Disk::at(config.folder)), data)
        } else if swarm.run().is_file() {
            (swarm.run(), States::Swarm(swarm.clone()), Some(swarm.tokenizer()))
        } else {
            return Err(EngineError::NoNode { path: path.to_owned() });
        };
        let tokenizer = tokenizer.map(Path::to_owned).or(own_tokenizer);
        let tokenizer = tokenizer.ok_or(EngineError::NoTokenizer { path: node })?;
        let tokenizer = hf::read_tokenizer(&tokenizer)?;
        let model = read_run(&run)?.model;
        let loaded = open_backend(&Device::Cpu { threads }, &model)?.model()?;
        let (ends, place) = (TextEnds::of_tokenizer(&tokenizer), path.to_owned());
        let states = Some(states);
        let mut engine = Engine { model, loaded, tokenizer, ends, template: None, place, states, tip: None };
        engine.renew()?;
        Ok(engine)
    }

    /// Loads the newest saved state, if there is a newer one than is loaded. Without saved states, nothing.
    ///
    /// # Errors
    /// There is no state, or it cannot be read; if that came in the middle, the next call tries again.
    pub fn renew(&mut self) -> Result<(), EngineError> {
        let Some(states) = &self.states else { return Ok(()) };
        let newest = states.newest(Layout::of(&self.model).elements())?;
        let mut newest = newest.ok_or_else(|| EngineError::NoState { path: states.path().to_owned() })?;
        let tip = newest.tip();
        if self.tip == Some(tip) {
            return Ok(());
        }
        self.tip = None;
        let what = || format!("the state after round {}", round(tip));
        self.loaded.load(&mut newest).map_err(|error| EngineError::Load { what: what(), error })?;
        tracing::info!(round = round(tip), "a newer state is loaded");
        self.tip = Some(tip);
        Ok(())
    }

    /// What is loaded, for people: `round 12`, or the folder's name.
    pub fn state(&self) -> String {
        self.tip.map_or_else(|| self.name(), |tip| format!("round {}", round(tip)))
    }

    /// What the model is called: its folder's name.
    pub fn name(&self) -> String {
        let whole = self.place.canonicalize().unwrap_or_else(|_| self.place.clone());
        whole.file_name().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
    }

    /// The model's numbers.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Tokens that the model sees at most.
    pub fn context(&self) -> usize {
        self.model.sequence as usize
    }

    /// The model's own ends of a text.
    pub fn ends(&self) -> &TextEnds {
        &self.ends
    }

    /// The tokens of a text to be continued, beginning as the tokenizer begins texts.
    ///
    /// # Errors
    /// The tokenizer fails, or the text is empty and nothing begins one.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, GenerateError> {
        encode_prompt(&self.tokenizer, text, true, &self.ends)
    }

    /// The tokens of a conversation, up to where the assistant's next message begins.
    ///
    /// # Errors
    /// There is no chat template, or it refuses the conversation.
    pub fn encode_chat(&self, messages: &[Message]) -> Result<Vec<u32>, TalkError> {
        let template = self.template.as_ref().ok_or_else(|| ChatError::None { path: self.place.clone() })?;
        // The template has written what begins a text.
        Ok(encode_prompt(&self.tokenizer, &template.render(messages, true)?, false, &self.ends)?)
    }

    /// Continues tokens.
    ///
    /// # Errors
    /// As [`generate`].
    pub fn run(
        &mut self,
        prompt: &[u32],
        how: &Continue,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Continued, GenerateError> {
        generate(&mut *self.loaded, self.model.sequence as usize, &self.tokenizer, prompt, how, on_text)
    }
}

fn round(tip: Tip) -> String {
    tip.round.map_or_else(|| "none".to_owned(), |round| round.to_string())
}

/// Why a conversation has no tokens.
#[derive(Debug, thiserror::Error)]
pub enum TalkError {
    /// There is no template, or it refuses.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// The tokenizer fails.
    #[error(transparent)]
    Generate(#[from] GenerateError),
}
