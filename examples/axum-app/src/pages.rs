//! The three pages, as plain HTML.

use axum::response::Html;

fn escape(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '&' | '<' | '>' | '"' | '\'' => format!("&#{};", u32::from(c)),
            c => c.to_string(),
        })
        .collect()
}

fn page(title: &str, body: &str) -> Html<String> {
    Html(format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\
         <h1>{title}</h1>{body}"
    ))
}

fn hidden(name: &str, value: &str) -> String {
    format!("<input type=\"hidden\" name=\"{name}\" value=\"{}\">", escape(value))
}

pub fn home() -> Html<String> {
    page("Shop", "<p><a href=\"/login\">Sign in</a> · <a href=\"/account\">Your account</a>")
}

pub fn login(csrf_token: &str, return_to: Option<&str>, error: Option<&str>) -> Html<String> {
    let error = error.map(|error| format!("<p role=\"alert\">{}</p>", escape(error)));
    let return_to = return_to.map(|place| hidden("return_to", place));
    let body = format!(
        "{}<form method=\"post\" action=\"/login\">{}{}\
         <label>E-mail <input name=\"email\" type=\"email\" autocomplete=\"username\" required>\
         </label> <label>Password <input name=\"password\" type=\"password\" \
         autocomplete=\"current-password\" required></label> <button>Sign in</button></form>",
        error.unwrap_or_default(),
        hidden("csrf_token", csrf_token),
        return_to.unwrap_or_default(),
    );
    page("Sign in", &body)
}

pub fn account(csrf_token: &str, email: &str) -> Html<String> {
    let token = hidden("csrf_token", csrf_token);
    let body = format!(
        "<p>Signed in as {}</p>\
         <form method=\"post\" action=\"/logout\">{token}<button>Sign out</button></form>\
         <form method=\"post\" action=\"/api/auth/logout-everywhere\">{token}\
         <button>Sign out everywhere</button></form>",
        escape(email)
    );
    page("Your account", &body)
}
