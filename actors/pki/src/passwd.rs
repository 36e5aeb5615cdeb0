//! The password file of the supervisor: comma-separated lines of password, user, user again, and group, quoted as Go's
//! package for such files does.

/// The file. Lines about others than the two users of ours are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passwd {
    lines: Vec<Vec<String>>,
}

impl Passwd {
    /// Reads it. Lines that are too short say nothing and are dropped.
    pub(crate) fn parse(text: &str) -> Self {
        Self { lines: text.lines().map(fields).filter(|fields| fields.len() >= 2).collect() }
    }

    /// The password of a user; `None` for an empty one too.
    pub(crate) fn password(&self, user: &str) -> Option<&str> {
        let line = self.lines.iter().find(|line| line.get(1).is_some_and(|name| name == user))?;
        line.first().map(String::as_str).filter(|password| !password.is_empty())
    }

    /// Gives a user this password and this group.
    pub(crate) fn set(&mut self, user: &str, group: &str, password: &str) {
        let line = [password, user, user, group].map(str::to_owned).to_vec();
        match self.lines.iter_mut().find(|line| line.get(1).is_some_and(|name| name == user)) {
            Some(old) => *old = line,
            None => self.lines.push(line),
        }
    }

    /// The text of the file.
    pub(crate) fn to_csv(&self) -> String {
        let line = |line: &Vec<String>| line.iter().map(|field| quoted(field)).collect::<Vec<_>>().join(",") + "\n";
        self.lines.iter().map(line).collect()
    }
}

fn quoted(field: &str) -> String {
    if field.contains([',', '"']) || field.starts_with(char::is_whitespace) || field == "\\." {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

fn fields(line: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut inside = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        let field = all.last_mut().expect("there is always one");
        match character {
            '"' if inside && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' if inside || field.is_empty() => inside = !inside,
            ',' if !inside => all.push(String::new()),
            other => field.push(other),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_users_of_others_are_kept() {
        let mut passwd = Passwd::parse("old,node,node,k3s:agent\nx,somebody,somebody,system:masters\n\n");
        passwd.set("node", "k3s:agent", "new");
        passwd.set("server", "k3s:server", "a,\"b\"");
        let wanted =
            "new,node,node,k3s:agent\nx,somebody,somebody,system:masters\n\"a,\"\"b\"\"\",server,server,k3s:server\n";
        assert_eq!(passwd.to_csv(), wanted);
        assert_eq!(Passwd::parse(wanted), passwd);
        assert_eq!(passwd.password("server"), Some("a,\"b\""));
        assert_eq!(passwd.password("nobody"), None);
    }

    proptest! {
        #[test]
        fn any_password_comes_back(password in "[ -~]{1,30}") {
            let mut passwd = Passwd::default();
            passwd.set("server", "k3s:server", &password);
            let again = Passwd::parse(&passwd.to_csv());
            prop_assert_eq!(again.password("server"), Some(password.as_str()));
        }
    }
}
