//! Where a password comes from: the variable that btcli uses, or a person at a terminal.

use super::base64;
use std::fmt;
use std::io::IsTerminal;
use std::path::Path;
use zeroize::Zeroizing;

/// Bytes of the longest password that is taken.
const PASSWORD_BYTES_MAX: usize = 1024;
/// Characters of the shortest that encrypts a new key. The file can be tried against for ever.
const NEW_PASSWORD_MIN: usize = 8;

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Nobody to ask.
    #[error("give its password in the variable {variable}, or use a terminal")]
    Nowhere {
        /// What btcli calls it.
        variable: String,
    },
    /// The terminal does not answer.
    #[error("the password cannot be read: {0}")]
    Terminal(std::io::Error),
    /// Typed twice, not alike.
    #[error("the two passwords differ; nothing was written")]
    Differ,
    /// Too short to protect anything.
    #[error("the password has {0} characters; a coldkey's needs {NEW_PASSWORD_MIN}")]
    Short(usize),
    /// Too long.
    #[error("the password has more than {PASSWORD_BYTES_MAX} bytes")]
    Long,
}

/// A password. It has no text form, and is wiped when it goes.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

impl Password {
    /// This one.
    ///
    /// # Errors
    /// More than 1,024 bytes.
    pub fn new(text: String) -> Result<Password, PasswordError> {
        let text = Zeroizing::new(text);
        if text.len() > PASSWORD_BYTES_MAX { Err(PasswordError::Long) } else { Ok(Password(text)) }
    }

    /// For a new file, from its variable or, twice, from the terminal.
    ///
    /// # Errors
    /// No password, two that differ, or one that is too short.
    pub fn for_new(path: &Path) -> Result<Password, PasswordError> {
        // The likelier reading is also the one that btcli will have of it.
        let password = match from_environment(path).into_iter().next() {
            Some(password) => password,
            None => {
                let first = ask(path, &format!("a new password for {}", path.display()))?;
                let again = ask(path, "the same again")?;
                if *first.0 != *again.0 {
                    return Err(PasswordError::Differ);
                }
                first
            }
        };
        let length = password.0.chars().count();
        if length < NEW_PASSWORD_MIN { Err(PasswordError::Short(length)) } else { Ok(password) }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// How an encrypted key is opened.
#[derive(Clone, Debug)]
pub enum Unlock {
    /// With this password.
    With(Password),
    /// With what stands in the key's variable: for a node that nobody sits at.
    Environment,
    /// With that or, at a terminal, with what is typed.
    Ask,
}

impl Unlock {
    /// The passwords to try for the key at `path`, in this order.
    pub(super) fn passwords(&self, path: &Path) -> Result<Vec<Password>, PasswordError> {
        let known = match self {
            Unlock::With(password) => vec![password.clone()],
            Unlock::Environment | Unlock::Ask => from_environment(path),
        };
        match self {
            _ if !known.is_empty() => Ok(known),
            Unlock::Ask => Ok(vec![ask(path, &format!("password of {}", path.display()))?]),
            _ => Err(PasswordError::Nowhere { variable: variable(path) }),
        }
    }
}

/// What btcli calls the variable with a key's password: `BT_PW_` and the path in capitals, `/` and `.` as `_`.
pub fn variable(path: &Path) -> String {
    let path = path.to_string_lossy().replace(['/', '.'], "_");
    format!("BT_PW_{}", path.to_uppercase())
}

/// What stands in the variable: as btcli writes it (base64 of the bytes, each XORed with the variable's name), and as a
/// person would, plain. The likelier reading first.
fn from_environment(path: &Path) -> Vec<Password> {
    let name = variable(path);
    let Some(value) = std::env::var_os(&name).and_then(|value| value.into_string().ok()).map(Zeroizing::new) else {
        return Vec::new();
    };
    if value.is_empty() || value.len() > 2 * PASSWORD_BYTES_MAX {
        return Vec::new();
    }
    readings(&name, &value).into_iter().filter_map(|text| Password::new(text).ok()).collect()
}

fn readings(name: &str, value: &str) -> Vec<String> {
    let hidden = base64::decode(value.as_bytes()).and_then(|mut bytes| {
        bytes.iter_mut().zip(name.bytes().cycle()).for_each(|(byte, key)| *byte ^= key);
        String::from_utf8(bytes).ok().filter(|text| !text.is_empty() && !text.contains(char::is_control))
    });
    hidden.into_iter().chain([value.to_owned()]).collect()
}

fn ask(path: &Path, prompt: &str) -> Result<Password, PasswordError> {
    // The terminal itself is asked, and echoes nothing; without one nobody is there to answer.
    if !std::io::stdin().is_terminal() {
        return Err(PasswordError::Nowhere { variable: variable(path) });
    }
    Password::new(rpassword::prompt_password(format!("{prompt}: ")).map_err(PasswordError::Terminal)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_is_named_as_btcli_names_it() {
        let path = Path::new("/w/x.y/alice-b c");
        assert_eq!(variable(path), "BT_PW__W_X_Y_ALICE-B C");
        assert_eq!(
            variable(Path::new("/w/.bittensor/wallets/default/coldkey")),
            "BT_PW__W__BITTENSOR_WALLETS_DEFAULT_COLDKEY"
        );
    }

    /// The value is what bittensor-wallet 4.1.0 put there for this password.
    #[test]
    fn the_variable_s_value_is_read_as_btcli_hides_it_and_plain() {
        let readings = |value| readings("BT_PW__W_X_Y_ALICE-B C", value);
        assert_eq!(readings("ETE8IjIrbnYvOSwq"), ["Secret1!pass", "ETE8IjIrbnYvOSwq"]);
        assert_eq!(readings("Secret1!pass"), ["Secret1!pass"]);
    }

    #[test]
    fn a_password_has_no_text_form() {
        let password = Password::new("hunter2hunter2".into()).unwrap();
        assert_eq!(format!("{password:?} {:?}", Unlock::With(password.clone())), "Password With(Password)");
        assert!(Password::new("x".repeat(1025)).is_err());
    }
}
