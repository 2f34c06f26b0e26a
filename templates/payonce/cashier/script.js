(function(){
"use strict";
var page=document.getElementById("payonce");
if(!page){return}
var at=location.pathname,short=page.dataset.address,screen=page.dataset.screen,version=page.dataset.version;
var wait=Number(page.dataset.poll)||0,timer=0,busy=false,offline=document.getElementById("offline");
function later(){clearTimeout(timer);if(wait){timer=setTimeout(ask,document.hidden?Math.max(wait,15000):wait)}}
function renew(){location.replace(location.pathname)}
function ask(){
  if(busy||!wait){return}
  busy=true;clearTimeout(timer);
  fetch(at+"state/",{cache:"no-store",credentials:"same-origin"}).then(function(answer){
    if(answer.status===404){renew()}
    if(!answer.ok){throw new Error("status")}
    return answer.json();
  }).then(function(now){
    if(offline){offline.hidden=true}
    if(String(now.version)!==version||now.screen!==screen){renew();return}
    wait=now.final?0:now.next_poll_ms||0;
  }).catch(function(){if(offline){offline.hidden=navigator.onLine}}).then(function(){busy=false;later()});
}
["focus","online","pageshow"].forEach(function(name){addEventListener(name,ask)});
document.addEventListener("visibilitychange",function(){if(!document.hidden){ask()}});
document.addEventListener("submit",function(event){
  if(event.target.dataset.sent){event.preventDefault();return}
  event.target.dataset.sent="1";
});
addEventListener("pageshow",function(event){
  if(event.persisted){renew()}
});
var copy=document.getElementById("copy");
if(copy&&navigator.clipboard){copy.hidden=false;copy.addEventListener("click",function(){
  navigator.clipboard.writeText(copy.dataset.text).then(function(){copy.textContent=copy.dataset.done});
})}
if(at!==short){
  fetch(short+"state/",{cache:"no-store",credentials:"same-origin"}).then(function(answer){
    if(answer.ok){history.replaceState(null,"",short);at=short}
  }).catch(function(){});
}
if(page.dataset.milestone){page.querySelector("h1").focus()}
later();
})();
