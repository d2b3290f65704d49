//! What a `User-Agent` says of the browser and the device: enough to know one's own by.
//!
//! A table of our own. The lists of the field are regular expressions by the thousand, for fifteen
//! years of devices; a user looking at a list of sessions needs "Firefox on Linux", and nothing
//! here decides anything.

/// A browser and its device, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Device {
    /// Its name and major version.
    pub(super) browser: Option<String>,
    /// The operating system.
    pub(super) os: Option<&'static str>,
    /// `desktop`, `mobile`, `tablet` or `bot`.
    pub(super) kind: Option<&'static str>,
}

impl Device {
    /// Reads a `User-Agent`.
    pub(super) fn of(agent: &str) -> Self {
        let browser = BROWSERS.iter().find_map(|(mark, name)| {
            let after = agent.split_once(mark)?.1;
            let major: String = after.chars().take_while(char::is_ascii_digit).take(5).collect();
            Some(if major.is_empty() { (*name).to_owned() } else { format!("{name} {major}") })
        });
        let os = SYSTEMS.iter().find(|(mark, _)| agent.contains(mark)).map(|(_, name)| *name);
        Self { kind: kind_of(agent, os), browser, os }
    }
}

fn kind_of(agent: &str, os: Option<&'static str>) -> Option<&'static str> {
    let is_bot = BOTS.iter().any(|mark| agent.contains(mark));
    match os {
        _ if is_bot => Some("bot"),
        Some("iPadOS") => Some("tablet"),
        Some("Android") if !agent.contains("Mobile") => Some("tablet"),
        Some("Android" | "iOS") => Some("mobile"),
        Some(_) if agent.starts_with("Mozilla/") => Some("desktop"),
        Some(_) | None => None,
    }
}

/// What a browser says before its version. The first that is found counts: most claim to be
/// Safari too, and many to be Chrome.
const BROWSERS: &[(&str, &str)] = &[
    ("Edg/", "Edge"),
    ("EdgA/", "Edge"),
    ("EdgiOS/", "Edge"),
    ("OPR/", "Opera"),
    ("Vivaldi/", "Vivaldi"),
    ("YaBrowser/", "Yandex Browser"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("DuckDuckGo/", "DuckDuckGo"),
    ("FxiOS/", "Firefox"),
    ("Firefox/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("HeadlessChrome/", "Headless Chrome"),
    ("Chromium/", "Chromium"),
    ("Chrome/", "Chrome"),
    ("Version/", "Safari"),
    ("curl/", "curl"),
    ("Wget/", "Wget"),
    ("HTTPie/", "HTTPie"),
    ("PostmanRuntime/", "Postman"),
    ("insomnia/", "Insomnia"),
    ("python-requests/", "Python Requests"),
    ("python-httpx/", "HTTPX"),
    ("aiohttp/", "aiohttp"),
    ("Python-urllib/", "urllib"),
    ("okhttp/", "OkHttp"),
    ("Dart/", "Dart"),
    ("axios/", "axios"),
    ("node-fetch/", "node-fetch"),
    ("undici", "undici"),
    ("Go-http-client/", "Go"),
    ("reqwest/", "reqwest"),
    ("ureq/", "ureq"),
];

/// What names a system. The first that is found counts: Android claims to be Linux, and an iPad
/// may claim to be a Mac.
const SYSTEMS: &[(&str, &str)] = &[
    ("iPad", "iPadOS"),
    ("iPhone", "iOS"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("CrOS", "ChromeOS"),
    ("Mac OS X", "macOS"),
    ("Macintosh", "macOS"),
    ("FreeBSD", "FreeBSD"),
    ("OpenBSD", "OpenBSD"),
    ("Linux", "Linux"),
];

/// What a crawler says of itself.
const BOTS: &[&str] = &["bot/", "Bot/", "bot;", "crawler", "spider"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_agents_are_told_apart() {
        for (agent, browser, os, kind) in [
            (
                "Mozilla/5.0 (X11; Linux x86_64; rv:141.0) Gecko/20100101 Firefox/141.0",
                "Firefox 141",
                "Linux",
                "desktop",
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
                 Chrome/139.0.0.0 Safari/537.36",
                "Chrome 139",
                "Windows",
                "desktop",
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
                 Chrome/139.0.0.0 Safari/537.36 Edg/139.0.0.0",
                "Edge 139",
                "Windows",
                "desktop",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 \
                 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1",
                "Safari 18",
                "iOS",
                "mobile",
            ),
            (
                "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) \
                 Chrome/139.0.0.0 Mobile Safari/537.36",
                "Chrome 139",
                "Android",
                "mobile",
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, \
                 like Gecko) Version/17.6 Safari/605.1.15",
                "Safari 17",
                "macOS",
                "desktop",
            ),
        ] {
            let device = Device::of(agent);
            assert_eq!(device.browser.as_deref(), Some(browser), "{agent}");
            assert_eq!((device.os, device.kind), (Some(os), Some(kind)), "{agent}");
        }
    }

    #[test]
    fn what_is_no_browser_claims_no_device() {
        let device = Device::of("curl/8.14.1");
        assert_eq!(device.browser.as_deref(), Some("curl 8"));
        assert_eq!((device.os, device.kind), (None, None));
        assert_eq!(Device::of("<script>alert(1)</script>"), Device::default());
        assert_eq!(Device::of("Firefox/").browser.as_deref(), Some("Firefox"));
    }
}
