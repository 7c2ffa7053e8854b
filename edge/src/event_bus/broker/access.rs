//! Who may come in, and what each may do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use log::warn;
use model::DeviceId;
use ring::hmac;
use wire::mqtt::grant::Grant;

use super::files::{Problem, Watched};
use crate::config::{Invalid, Mqtt, MqttRule};

/// Longest password that is looked at, in bytes.
pub const PASSWORD_BYTES_MAX: usize = 256;

/// The name in a rule that is meant for everybody who has no rule of its own.
const ANYBODY: &str = "*";
/// In a rule's device: the client's own name.
const OWN_NAME: &str = "{user}";

/// What one client may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Everything, as in KubeEdge.
    All,
    /// What a rule says.
    Granted(Grant),
}

impl Rights {
    /// May it publish there? `$SYS` is the broker's own.
    pub fn publishes(&self, topic: &str) -> bool {
        match self {
            _ if topic.starts_with("$SYS/") => false,
            Self::All => true,
            Self::Granted(grant) => grant.publishes(topic),
        }
    }

    /// May it subscribe this filter, or share it with others?
    pub fn subscribes(&self, filter: &str) -> bool {
        match self {
            Self::All => true,
            Self::Granted(grant) => grant.subscribes(mqtt5::strip_shared_subscription_prefix(filter)),
        }
    }
}

/// What clients may do, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(Vec<MqttRule>);

impl Rules {
    /// Takes over the rules of the configuration.
    ///
    /// # Errors
    /// `Invalid` names the rule and what is wrong with it.
    pub fn new(rules: &[MqttRule]) -> Result<Self, Invalid> {
        for (index, rule) in rules.iter().enumerate() {
            let invalid =
                |value: &str, advice: String| Invalid { key: "mqtt.internal-rules", value: format!("`{value}` of rule {}", index + 1), advice };
            if rule.user.is_empty() {
                return Err(invalid("user", "write the user's name, the common name of its certificate, or \"*\" for everybody else".into()));
            }
            if rules[..index].iter().any(|earlier| earlier.user == rule.user) {
                return Err(invalid(&rule.user, "one user has one rule: write all of it there".into()));
            }
            for device in rule.devices.iter().filter(|device| *device != OWN_NAME) {
                DeviceId::new(device)
                    .map_err(|error| invalid(device, format!("write a device's id, NAME or NAMESPACE/NAME, or \"{OWN_NAME}\" ({error})")))?;
            }
            for filter in rule.publish.iter().chain(&rule.subscribe) {
                if !wire::mqtt::is_filter(filter) {
                    return Err(invalid(filter, "write a topic, or a filter with `+` and `#` as MQTT has them".into()));
                }
            }
        }
        Ok(Self(rules.to_vec()))
    }

    /// What a client may do; `None` where the rules do not know it. Without rules everybody may do everything.
    pub fn of(&self, name: Option<&str>) -> Option<Rights> {
        if self.0.is_empty() {
            return Some(Rights::All);
        }
        let rule = self.0.iter().find(|rule| name.is_some_and(|name| name == rule.user && name != ANYBODY));
        let rule = rule.or_else(|| self.0.iter().find(|rule| rule.user == ANYBODY))?;
        // A name that is no device's id speaks for no device.
        let device = |id: &String| DeviceId::new(if id == OWN_NAME { name? } else { id }).ok();
        Some(Rights::Granted(Grant {
            devices: rule.devices.iter().filter_map(device).collect(),
            upload: rule.upload,
            publish: rule.publish.clone(),
            subscribe: rule.subscribe.clone(),
        }))
    }
}

/// The users of `mqtt.internal-users-file`: `NAME:HASH` a line, as `skep-edge mqtt-user` writes it. Read again when the
/// file has changed.
pub struct Users {
    file: Watched<HashMap<String, String>>,
    /// Passwords that were right, so that a client that comes back costs no second of work. Keyed by a random key of this
    /// process; forgotten when the hash changes.
    proven: Mutex<HashMap<String, (String, hmac::Tag)>>,
    key: hmac::Key,
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Users")
    }
}

impl Users {
    /// Reads the file.
    ///
    /// # Errors
    /// The file and line that cannot be used.
    pub fn read(path: &std::path::Path) -> Result<Self, Problem> {
        let file = Watched::read(vec![path.to_owned()], |contents| parse(&contents[0]))?;
        let mut random = [0; 32];
        rand::Rng::fill(&mut rand::rng(), &mut random);
        Ok(Self { file, proven: Mutex::default(), key: hmac::Key::new(hmac::HMAC_SHA256, &random) })
    }

    /// Whether the password is this user's. Takes some 50 ms of one core and 19 MiB for a password that was not proven
    /// before: not for a thread that others wait for.
    pub fn know(&self, name: &str, password: &[u8]) -> bool {
        let Ok(text) = std::str::from_utf8(password) else { return false };
        if password.len() > PASSWORD_BYTES_MAX {
            return false;
        }
        let hash = self.file.current().get(name).cloned();
        if let Some(hash) = &hash
            && let Some((proven, tag)) = self.proven().get(name)
            && proven == hash
            && hmac::verify(&self.key, password, tag.as_ref()).is_ok()
        {
            return true;
        }
        // A name that nobody has takes as long as a wrong password, so that names cannot be guessed by the clock.
        let known = mqtt5::broker::PasswordAuthProvider::verify_password(text, hash.as_deref().unwrap_or(NOBODY));
        match hash.filter(|_| known) {
            Some(hash) => {
                self.proven().insert(name.to_owned(), (hash, hmac::sign(&self.key, password)));
                true
            }
            None => false,
        }
    }

    fn proven(&self) -> std::sync::MutexGuard<'_, HashMap<String, (String, hmac::Tag)>> {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A hash that costs what a user's does and that no password has (its output is all zero).
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$c2tlcC1lZGdlLW5vYm9keQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn parse(text: &[u8]) -> Result<HashMap<String, String>, String> {
    let text = std::str::from_utf8(text).map_err(|_| "it is not text".to_owned())?;
    let mut users = HashMap::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#')) {
        let wrong = |what: &str| format!("line {}: {what}; write it with `skep-edge mqtt-user add NAME`", index + 1);
        let (name, hash) = line.split_once(':').ok_or_else(|| wrong("it is not NAME:HASH"))?;
        check_name(name).map_err(&wrong)?;
        if !hash.starts_with("$argon2id$") || hash.split('$').count() != 6 {
            return Err(wrong("its hash is none of Argon2id"));
        }
        if users.insert(name.to_owned(), hash.trim_end().to_owned()).is_some() {
            return Err(wrong("its user has a line already"));
        }
    }
    Ok(users)
}

/// Whether a user may be called so.
///
/// # Errors
/// What is wrong.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > 128 || name == ANYBODY || name.contains([':', '#']) || name.contains(char::is_control) {
        return Err("a user's name has 1 to 128 bytes, no `:`, no `#`, and is not `*`");
    }
    Ok(())
}

/// Who may come in through which entrance.
#[derive(Debug)]
pub struct Access {
    /// Known users; `None` where no file is named.
    pub users: Option<Users>,
    /// What each may do.
    pub rules: Rules,
    /// One password is looked at at a time.
    pub one_by_one: tokio::sync::Semaphore,
    /// Clients that are inside: by client id, its user and how many connections have it.
    inside: Mutex<HashMap<String, (Option<String>, usize)>>,
}

impl Default for Access {
    fn default() -> Self {
        Self { users: None, rules: Rules::default(), one_by_one: tokio::sync::Semaphore::new(1), inside: Mutex::default() }
    }
}

impl Access {
    /// Reads the users' file and the rules.
    ///
    /// # Errors
    /// `Invalid` names key, file and line.
    pub fn new(mqtt: &Mqtt) -> Result<Self, Invalid> {
        let path = &mqtt.internal_users_file;
        let users = (!path.as_os_str().is_empty()).then(|| Users::read(path)).transpose();
        let users = users.map_err(|problem| problem.of("mqtt.internal-users-file", "skep-edge mqtt-user add NAME"))?;
        Ok(Self { users, rules: Rules::new(&mqtt.internal_rules)?, ..Self::default() })
    }

    /// Notes that a client with this id and user is inside. `None` if another user has that id now: MQTT would end the
    /// other's connection, which is for nobody but itself to do.
    pub fn enter(self: &Arc<Self>, id: &str, user: Option<&str>) -> Option<Inside> {
        let mut inside = self.inside();
        let (owner, count) = inside.entry(id.to_owned()).or_insert_with(|| (user.map(str::to_owned), 0));
        if owner.as_deref() != user {
            warn!(client = id, user = user.unwrap_or("-"), owner = owner.as_deref().unwrap_or("-"); "an MQTT client was refused: another user is connected under its client id");
            return None;
        }
        *count += 1;
        Some(Inside { access: self.clone(), id: id.to_owned() })
    }

    fn inside(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Option<String>, usize)>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client that is inside, until this is dropped.
#[derive(Debug)]
pub struct Inside {
    access: Arc<Access>,
    id: String,
}

impl Drop for Inside {
    fn drop(&mut self) {
        let mut inside = self.access.inside();
        if let Some((_, count)) = inside.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                inside.remove(&self.id);
            }
        }
    }
}
